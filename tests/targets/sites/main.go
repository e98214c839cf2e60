// Sites allocates on command at many call sites, and says what its own heap profile, of all objects, tells of each. A
// byte of standard input is a command:
//
//	a  allocate: as said below
//	p  write what the heap profile says, a line "objects bytes file:line function" for each call site, which is the first
//	   function of a stack that is not in package runtime, the inlined ones too; then an empty line
//
// The profile counts of objects for the tiny allocator only those that begin a block.
package main

import (
	"os"
	"path"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
)

type node struct {
	next  *node
	value [2]int
}

type leaf struct{ a, b uint64 }

type dot struct{ x, y uint8 }

type shape interface{ grow() *leaf }

type square struct{ side int }

func (one square) grow() *leaf { return &leaf{a: uint64(one.side)} }

type place struct {
	file string
	line int
	name string
}

var (
	anything any
	nodes    [4]*node
	leaves   [4]*leaf
	dots     [4]*dot
	numbers  []int
	bytes    []byte
	text     string
	table    map[int]int
	shapes   = []shape{&square{1}, square{2}}
	kind     = reflect.TypeOf(node{})
	records  [1 << 14]runtime.MemProfileRecord
	line     = make([]byte, 0, 1<<16)
)

//go:noinline
func two() {
	nodes[0] = &node{}
	for n := 0; n < 2; n++ {
		leaves[0] = &leaf{}
	}
}

func inlined() *node { return &node{value: [2]int{1, 2}} }

//go:noinline
func within() { nodes[1] = inlined() }

func generic[T any](into **T) { *into = new(T) }

//go:noinline
func slices() {
	numbers = make([]int, 0, 4)
	for n := 0; n < 300; n++ {
		numbers = append(numbers, n)
	}
}

//go:noinline
func maps() {
	table = make(map[int]int)
	for n := 0; n < 100; n++ {
		table[n] = n
	}
}

//go:noinline
func texts(part string) {
	text = part + "that is longer than the tiny allocator takes " + part
	bytes = []byte(text)
	text = strings.Repeat(part, 40)
	text = strconv.Quote(text)
}

//go:noinline
func interfaces(one square) {
	anything = [3]uint64{uint64(one.side), 2, 3}
	for at := range shapes {
		leaves[1+at] = shapes[at].grow()
	}
	anything = reflect.New(kind).Interface()
}

//go:noinline
func large() { bytes = make([]byte, 100_000) }

//go:noinline
func tiny() {
	for n := 0; n < 10; n++ {
		dots[0] = &dot{1, 2}
	}
}

//go:noinline
func deep(left int) *leaf {
	if left == 0 {
		return &leaf{}
	}
	found := deep(left - 1)
	found.b++
	return found
}

func allocate() {
	for n := 0; n < 50; n++ {
		two()
		within()
		generic(&leaves[3])
		generic(&nodes[2])
		slices()
		maps()
		texts("part ")
		interfaces(square{n})
		large()
		tiny()
		leaves[0] = deep(40)
		func() { nodes[3] = &node{next: nodes[0]} }()
	}
}

// Reflect.unsafe_New is in package runtime, too. Up to Go 1.25 profiles leave it out, as they do mallocgc's caller.
var runtimeAt = func() string {
	file, _ := runtime.FuncForPC(reflect.ValueOf(runtime.GC).Pointer()).FileLine(0)
	return path.Dir(file)
}()

func siteOf(stack []uintptr) (place, bool) {
	frames := runtime.CallersFrames(stack)
	for {
		frame, more := frames.Next()
		name := frame.Function
		runtimes := strings.HasPrefix(name, "runtime.") || strings.HasPrefix(name, "internal/runtime/") ||
			path.Dir(frame.File) == runtimeAt
		if name != "" && !runtimes {
			return place{frame.File, frame.Line, name}, true
		}
		if !more {
			return place{}, false
		}
	}
}

func tell() {
	runtime.GC()
	runtime.GC()
	count, _ := runtime.MemProfile(records[:], true)
	found := map[place][2]int64{}
	for at := range records[:count] {
		if site, ok := siteOf(records[at].Stack()); ok {
			sums := found[site]
			found[site] = [2]int64{sums[0] + records[at].AllocObjects, sums[1] + records[at].AllocBytes}
		}
	}
	for site, sums := range found {
		line = append(strconv.AppendInt(line[:0], sums[0], 10), ' ')
		line = append(strconv.AppendInt(line, sums[1], 10), ' ')
		line = append(append(line, site.file...), ':')
		line = append(strconv.AppendInt(line, int64(site.line), 10), ' ')
		write(append(append(line, site.name...), '\n'))
	}
	write([]byte("\n"))
}

func write(line []byte) {
	for sent := 0; sent < len(line); {
		count, err := syscall.Write(1, line[sent:])
		if err != nil {
			os.Exit(1)
		}
		sent += count
	}
}

func main() {
	runtime.MemProfileRate = 1
	debug.SetGCPercent(-1)
	var command [1]byte
	for {
		count, err := syscall.Read(0, command[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count == 0 {
			return
		}
		switch command[0] {
		case 'a':
			allocate()
			write([]byte("done\n"))
		case 'p':
			tell()
		}
	}
}
