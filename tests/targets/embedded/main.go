// Embedded is a library for a C program (host.c): a Go heap in a process whose executable is none of Go's.
package main

import "C"

import (
	"syscall"
	"unsafe"
)

var keep [][]byte

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

func main() {}
