// Holders keeps objects of several calls, writes its own heap profile to the file of its argument, allocates more
// without collecting, says so in a line, and stands still until its input ends.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
)

const mb = 1 << 20

var (
	kept [][]byte
	sink []byte
)

func fill(total, size int) {
	for ; total > 0; total -= size {
		one := make([]byte, size)
		for at := 0; at < size; at += 4096 {
			one[at] = 1
		}
		kept = append(kept, one)
	}
}

//go:noinline
func most() { fill(12*mb, 1024) }

//go:noinline
func some() { fill(6*mb, 64<<10) }

//go:noinline
func few() { fill(3*mb, 4096) }

// Nearly all of its memory is never touched, so that the kernel has no page for it.
//
//go:noinline
func sparse() {
	one := make([]byte, 64*mb)
	for at := 0; at < 2*mb; at += 4096 {
		one[at] = 1
	}
	kept = append(kept, one)
}

//go:noinline
func since() { fill(5*mb, 2048) }

func main() {
	debug.SetGCPercent(-1)
	runtime.MemProfileRate = 4096
	runtime.GOMAXPROCS(1) // each P has its own next sample
	for i := 0; i < 16; i++ {
		sink = make([]byte, mb) // to where that was due, by the rate of before
	}
	sink = nil
	kept = make([][]byte, 0, 1<<16)
	most()
	some()
	few()
	sparse()
	runtime.GC()
	runtime.GC()
	file, err := os.Create(os.Args[1])
	if err != nil {
		panic(err)
	}
	if err := pprof.Lookup("heap").WriteTo(file, 0); err != nil {
		panic(err)
	}
	if err := file.Close(); err != nil {
		panic(err)
	}
	since()
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
	runtime.KeepAlive(kept)
}
