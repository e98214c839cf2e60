package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strings"
)

var kept []interface{}

//go:noinline
func keep(what interface{}) { kept = append(kept, what) }

// Calls of functions that the compiler inlines into each other.
func first() *[100]byte  { return second() }
func second() *[100]byte { return third() }
func third() *[100]byte  { return fourth() }
func fourth() *[100]byte { return new([100]byte) }

type allocator interface{ Allocate() *[200]byte }

type inside struct{ made int }

func (i *inside) Allocate() *[200]byte {
	i.made++
	return new([200]byte)
}

// The compiler makes up methods of outside that call those of inside.
type outside struct {
	number int
	*inside
}

type byValue struct{ number int }

//go:noinline
func (v byValue) Allocate() *[200]byte { return &[200]byte{byte(v.number)} }

type pair[A, B any] struct {
	left  A
	right B
}

func make2[A, B any](left A, right B) *pair[A, B] { return &pair[A, B]{left, right} }

func (p *pair[A, B]) swapped() *pair[B, A] { return make2(p.right, p.left) }

//go:noinline
func apart[A, B any](left A, right B) *pair[B, A] { return make2(left, right).swapped() }

func elsewhere() *[300]byte {
//line made/up name.y:1000
	made := new([300]byte)
	made[0] = byte(len(kept))
//line made/other.y:5
	return made
}

func closures() func() interface{} {
	return func() interface{} {
		inside := func() interface{} { return first() }
		return inside()
	}
}

func recovers() {
	defer func() {
		keep(new([400]byte))
		_ = recover()
	}()
	var nothing *[1 << 10]byte
	nothing[len(kept)%10] = 1
}

func wrapperPanics() {
	defer func() {
		keep(first())
		_ = recover()
	}()
	var nothing *byValue
	var one allocator = nothing
	one.Allocate()
}

// Stacks deeper than what the runtime keeps of them, cut within functions that are inlined.
//
//go:noinline
func deep(level int) interface{} {
	if level == 0 {
		return first()
	}
	return deeper(level)
}

func deeper(level int) interface{}  { return deepest(level) }
func deepest(level int) interface{} { return deep(level - 1) }

func text(level int) string { return strings.Repeat("x", level) + fmt.Sprint(level) }

// profile writes the heap profile.
func profile(path string) {
	debug.SetGCPercent(-1)
	for round := 0; round < 3; round++ {
		shapes(round)
	}
	done := make(chan bool)
	go func(round int) { shapes(round); done <- true }(1)
	<-done
	go background(done)
	<-done
	// What was allocated since the last collection is not in the profile yet.
	runtime.GC()
	runtime.GC()
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	if err := pprof.Lookup("heap").WriteTo(file, 0); err != nil {
		panic(err)
	}
	if err := file.Close(); err != nil {
		panic(err)
	}
}

func background(done chan bool) {
	keep(first())
	done <- true
}

func shapes(round int) {
	keep(first())
	keep(third())
	for _, one := range []allocator{&inside{}, outside{1, &inside{}}, &outside{1, &inside{}}, byValue{1}, &byValue{2}} {
		keep(one.Allocate())
		allocate := one.Allocate
		keep(allocate())
	}
	keep(apart(round, "text"))
	keep(apart("text", []byte{1}))
	keep(apart(1.5, &byValue{3}))
	keep(elsewhere())
	keep(closures()())
	recovers()
	wrapperPanics()
	for level := 0; level < 140; level += 7 {
		keep(deep(level))
	}
	for level := 8; level < 16; level++ {
		keep(deep(level))
	}
	keep(text(100))
	table := map[string]*[100]byte{}
	for level := 0; level < 100; level++ {
		table[text(level)] = fourth()
	}
	keep(table)
	keep(append([]byte(nil), text(round)...))
}

func init() { runtime.MemProfileRate = 1 }
