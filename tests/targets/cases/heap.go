package main

import (
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"unsafe"
)

// Freed lets go of one large slice; nothing makes the scavenger hurry.
func freed() {
	one := filled(300 << 20)
	runtime.KeepAlive(one)
	one = nil
	runtime.GC()
}

func givenBack() {
	hold(200)
	held = nil
	debug.FreeOSMemory()
}

type small [256]byte

var kept []*small

// Holes lets go of all but one object of each span.
func holes() {
	for i := 0; i < 300_000; i++ {
		one := new(small)
		one[0] = 1
		kept = append(kept, one)
	}
	for i := range kept {
		if i%30 != 0 {
			kept[i] = nil
		}
	}
	runtime.GC()
}

type row struct {
	name  string
	value int64
}

var rows []row

// Large has two objects that are nearly all of the heap: one of bytes, one of a type of its own.
func large() {
	held = append(held, filled(120<<20))
	rows = make([]row, 4<<20)
	for at := range rows {
		rows[at].value = int64(at)
	}
	runtime.GC()
}

// FreeRuns has room for many objects of 3 MB, and asks for larger ones.
func freeRuns() {
	hold(0)
	for i := 0; i < 120; i++ {
		held = append(held, filled(3<<20))
	}
	for i := 0; i < len(held); i += 2 {
		held[i] = nil
	}
	runtime.GC()
	for i := 0; i < 15; i++ {
		held = append(held, filled(4<<20))
	}
}

var table = map[int64][64]byte{}

// MapOfDeleted has a map that held a million values, and holds none.
func mapOfDeleted() {
	for i := int64(0); i < 1_000_000; i++ {
		table[i] = [64]byte{1}
	}
	for i := range table {
		delete(table, i)
	}
	runtime.GC()
}

var buffers = sync.Pool{New: func() interface{} { return new([]byte) }}

// Pool lends small buffers, of which each was large once, and puts them back before the pool is emptied.
func pool() {
	var out []*[]byte
	for i := 0; i < 6; i++ {
		one := buffers.Get().(*[]byte)
		*one = filled(20 << 20)
		out = append(out, one)
	}
	every(50e6, func() {
		for _, one := range out {
			buffers.Put(one)
		}
		runtime.GC()
		for at := range out {
			out[at] = buffers.Get().(*[]byte)
			if len(*out[at]) == 0 {
				*out[at] = filled(20 << 20)
			}
		}
	})
}

// Locked keeps all of its memory in RAM, also what it gives back.
func locked() {
	if err := syscall.Mlockall(1 | 2); err != nil {
		panic(err)
	}
	hold(100)
	held = nil
	debug.FreeOSMemory()
}

// HugePage writes one byte in each 2 MB of a heap for which it wants huge pages.
func hugePage() {
	one := make([]byte, 256<<20)
	begin := uintptr(unsafe.Pointer(&one[0]))
	first := int(-begin & (2<<20 - 1))
	size := (len(one) - first) &^ (2<<20 - 1)
	if err := syscall.Madvise(one[first:first+size], 14); err != nil {
		panic(err)
	}
	for at := first; at < first+size; at += 2 << 20 {
		one[at] = 1
	}
	held = append(held, one)
}
