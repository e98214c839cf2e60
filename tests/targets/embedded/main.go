// Embedded is a library for a C program (host.c): a Go heap in a process whose executable is none of Go's.
package main

import "C"

import (
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"
)

var (
	keep  [][]byte
	stats runtime.MemStats
)

// Hold keeps so many MB of written heap, and leaves a thread in a system call on a goroutine's stack.
//
//export Hold
func Hold(megabytes C.int) {
	for i := 0; i < int(megabytes); i++ {
		block := make([]byte, 1<<20)
		for at := range block {
			block[at] = 1
		}
		keep = append(keep, block)
	}
	started := make(chan struct{})
	go func() {
		var ends [2]int
		if err := syscall.Pipe(ends[:]); err != nil {
			panic(err)
		}
		close(started)
		var one [1]byte
		syscall.Syscall(syscall.SYS_READ, uintptr(ends[0]), uintptr(unsafe.Pointer(&one[0])), 1)
	}()
	<-started
}

// Address returns where a part of the heap is.
//
//export Address
func Address() C.size_t {
	return C.size_t(uintptr(unsafe.Pointer(&keep[0][0])))
}

// Measure lets the heap come to rest, and takes runtime.MemStats, for Figure to tell.
//
//export Measure
func Measure() {
	debug.SetGCPercent(-1)
	runtime.GC()
	runtime.GC()
	time.Sleep(50 * time.Millisecond)
	runtime.ReadMemStats(&stats)
}

// Figure returns what Measure found.
//
//export Figure
func Figure(which C.int) C.ulonglong {
	figures := [...]uint64{
		stats.HeapInuse, stats.HeapSys, stats.HeapAlloc, stats.StackInuse, stats.Sys, stats.Mallocs, uint64(stats.NumGC),
	}
	return C.ulonglong(figures[which])
}

// Churn allocates, drops and gives back memory for so many milliseconds.
//
//export Churn
func Churn(milliseconds C.int) {
	until := time.Now().Add(time.Duration(milliseconds) * time.Millisecond)
	for time.Now().Before(until) {
		dropped := make([][]byte, 0, 8)
		for i := 0; i < 8; i++ {
			dropped = append(dropped, make([]byte, 1<<20))
		}
		dropped[0][0] = 1
		dropped = nil
		debug.FreeOSMemory()
		time.Sleep(200 * time.Millisecond)
	}
}

func main() {}
