// Heapprofile allocates in many ways, collects, comes to rest, and writes its own heap profile: what gomem's must equal.
//
// Each line of its input is a command: "write NAME" writes the profiles NAME.heap and NAME.allocs (pprof.Lookup),
// "allocate N" allocates N objects in one place and keeps every second, "collect" runs two collections. It answers each
// with one line, and says "ready" first. It never collects by itself.
package main

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
)

var (
	kept    []any
	keeping sync.Mutex
	stacks  = flag.Int("stacks", 0, "how many more different stacks to allocate from, 64 deep")
	rate    = flag.Int("rate", -1, "runtime.MemProfileRate; -1: as it is")
	last    = flag.Int("last-rate", -1, "the rate from when it is ready on; -1: as it is")
	collect = flag.Bool("collect", true, "collect before it says that it is ready")
)

func keep(one any) {
	keeping.Lock()
	kept = append(kept, one)
	keeping.Unlock()
}

type node struct {
	next *node
	text [40]byte
}

// Inlined into each other, and all into their caller.
func newNode() *node            { return &node{} }
func chained(next *node) *node  { n := newNode(); n.next = next; return n }
func twice(next *node) *node    { return chained(chained(next)) }
func fourTimes(n *node) *node   { return twice(twice(n)) }
func bytesOf(count int) []byte  { return make([]byte, count) }
func words(count int) []*node   { return append(make([]*node, 0, count), nil) }
func joined(a, b string) string { return a + b }

//go:noinline
func inlined(count int) {
	var list *node
	for i := 0; i < count; i++ {
		list = fourTimes(list)
	}
	keep(list)
}

type pair[K comparable, V any] struct {
	key   K
	value V
}

type table[K comparable, V any] struct {
	rows []*pair[K, V]
	by   map[K]*pair[K, V]
}

func (t *table[K, V]) put(key K, value V) *pair[K, V] {
	row := &pair[K, V]{key, value}
	t.rows = append(t.rows, row)
	if t.by == nil {
		t.by = make(map[K]*pair[K, V])
	}
	t.by[key] = row
	return row
}

//go:noinline
func filled[K comparable, V any](count int, key func(int) K, value V) *table[K, V] {
	t := new(table[K, V])
	for i := 0; i < count; i++ {
		t.put(key(i), value)
	}
	return t
}

// Two instances call each other, and one is inlined into the other.
func swapped[K, V any](key *K, value *V, depth int) *node {
	if depth == 0 {
		return new(node)
	}
	return swapped(value, key, depth-1)
}

func generic() {
	for i := 0; i < 50; i++ {
		keep(swapped(&i, new(string), 6))
	}
	keep(filled(500, func(i int) int { return i }, "one"))
	keep(filled(500, func(i int) string { return fmt.Sprint("key ", i) }, [3]int{1, 2, 3}))
	keep(filled(50, func(i int) pair[int8, bool] { return pair[int8, bool]{int8(i), true} }, &node{}))
}

// A method reached through an embedded pointer and an interface: its wrapper is generated.
type inner struct{ size int }

func (i *inner) Make() []byte { return bytesOf(i.size) }

type outer struct{ *inner }

type value struct{ size int }

func (v value) Make() []byte { return bytesOf(v.size) }

type maker interface{ Make() []byte }

//go:noinline
func made(m maker) { keep(m.Make()) }

func methods() {
	for i := 0; i < 20; i++ {
		made(outer{&inner{100}})
		made(&value{200})
		call := (&value{300}).Make
		keep(call())
		keep(reflect.ValueOf(value{400}).MethodByName("Make").Call(nil)[0].Bytes())
	}
}

//go:noinline
func deep(depth, size int) []byte {
	if depth == 0 {
		return make([]byte, size)
	}
	return append(deep(depth-1, size), byte(depth))
}

// Its level is inlined, so that a stack may be cut in the middle of what is one function in the machine.
func level(depth int) *node {
	if depth == 0 {
		return fourTimes(nil)
	}
	return below(depth - 1)
}

//go:noinline
func below(depth int) *node { return level(depth) }

func depths() {
	for depth := 0; depth < 160; depth += 7 {
		keep(deep(depth, 1000+depth))
		keep(below(depth))
	}
	keep(deep(200, 64<<10))
}

func deferred() (result []byte) {
	defer func() {
		recover()
		defer func() { keep(bytesOf(700)) }()
		result = bytesOf(600)
	}()
	var none *node
	none.text[0] = 1
	return nil
}

func runtimes() {
	by := map[string]int{}
	for i := 0; i < 2000; i++ {
		by[joined("a rather long key ", strings.Repeat("x", i%50))+fmt.Sprint(i)] = i
	}
	keep(by)
	letters := make(chan []byte, 100)
	for i := 0; i < 50; i++ {
		letters <- []byte(fmt.Sprintf("%d %v", i, by[fmt.Sprint(i)]))
	}
	keep(letters)
	names := make([]string, 0)
	for name := range by {
		names = append(names, name)
	}
	sort.Strings(names)
	keep(names)
	var text bytes.Buffer
	for i := 0; i < 1000; i++ {
		fmt.Fprintf(&text, "%d,", i)
	}
	keep(text)
	for i := 0; i < 100; i++ {
		keep(interface{}(i * 1000))
		one := new(node)
		runtime.SetFinalizer(one, func(*node) {})
	}
	keep(make([]byte, 3<<20))
}

// What is allocated here is free after the next collection.
//
//go:noinline
func dropped() {
	for i := 0; i < 5000; i++ {
		sink = make([]byte, 300)
	}
	for i := 0; i < 20; i++ {
		sink = make([]byte, 1<<20)
	}
	sink = nil
}

var sink []byte

func parked(count int, release <-chan struct{}) {
	var started sync.WaitGroup
	for i := 0; i < count; i++ {
		started.Add(1)
		go func(i int) {
			mine := words(i + 1)
			started.Done()
			<-release
			runtime.KeepAlive(mine)
		}(i)
	}
	started.Wait()
}

// A different path for each number, 64 levels of left and right.
//
//go:noinline
func left(path uint64, depth int) { turn(path>>1, depth-1) }

//go:noinline
func right(path uint64, depth int) { turn(path>>1, depth-1) }

//go:noinline
func turn(path uint64, depth int) {
	switch {
	case depth <= 0:
		keep(new(node))
	case path&1 == 0:
		left(path, depth)
	default:
		right(path, depth)
	}
}

//go:noinline
func allocate(count int) {
	for i := 0; i < count; i++ {
		one := make([]byte, 2048)
		if i%2 == 0 {
			keep(one)
		}
	}
}

func write(name string) error {
	for _, kind := range []string{"heap", "allocs"} {
		file, err := os.Create(name + "." + kind)
		if err != nil {
			return err
		}
		// Once for nothing: what the first writing allocates is in the profile by then.
		var nowhere bytes.Buffer
		if err := pprof.Lookup(kind).WriteTo(&nowhere, 0); err != nil {
			return err
		}
		if err := pprof.Lookup(kind).WriteTo(file, 0); err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
	}
	return nil
}

func obey(command string) error {
	var count int
	switch name, rest, _ := strings.Cut(command, " "); name {
	case "write":
		return write(rest)
	case "allocate":
		if _, err := fmt.Sscan(rest, &count); err != nil {
			return err
		}
		allocate(count)
	case "collect":
		runtime.GC()
		runtime.GC()
	default:
		return fmt.Errorf("no such command: %q", command)
	}
	return nil
}

func main() {
	flag.Parse()
	if *rate >= 0 {
		runtime.MemProfileRate = *rate
	}
	debug.SetGCPercent(-1)
	for i := 0; i < 16; i++ {
		sink = make([]byte, 1<<20) // to where the next sample was due, by the rate of before
	}
	release := make(chan struct{})
	parked(100, release)
	inlined(300)
	generic()
	methods()
	depths()
	deferred()
	runtimes()
	dropped()
	fromC()
	for i := 0; i < *stacks; i++ {
		turn(uint64(i)<<16, 31) // what differs is in the 32 innermost calls: older releases keep no more
	}
	if *collect {
		runtime.GC()
		runtime.GC()
	}
	if *last >= 0 {
		runtime.MemProfileRate = *last
	}
	fmt.Println("ready")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		if err := obey(lines.Text()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("done")
	}
	runtime.KeepAlive(release)
}
