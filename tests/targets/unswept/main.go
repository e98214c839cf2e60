// Unswept drops the objects that it has, and stands still when a collection has found that out and nothing is swept yet:
// unswept BYTES. With a further word it lets the sweep finish. It writes HeapAlloc as a decimal number in a line first.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"
)

const size = 8192

var (
	kept [][]byte
	sink []byte
)

func main() {
	total, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	// The sweeper is one more goroutine: with one P, and in system calls that the scheduler does not know of, it waits.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	for done := 0; done < total; done += size {
		one := make([]byte, size)
		one[0], one[size/2] = 1, 1
		kept = append(kept, one)
	}
	line := make([]byte, 0, 32)
	var stats runtime.MemStats
	runtime.GC()
	kept = nil
	runtime.ReadMemStats(&stats)
	before := stats.NumGC
	debug.SetGCPercent(1)
	sink = make([]byte, total/8) // it starts a collection; who allocates after its end has to sweep first
	for stats.NumGC == before {
		runtime.Gosched()
		runtime.ReadMemStats(&stats)
	}
	if len(os.Args) > 2 {
		runtime.GC()
		runtime.ReadMemStats(&stats)
	}
	line = append(strconv.AppendUint(line, stats.HeapAlloc, 10), '\n')
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&line[0])), uintptr(len(line)))
	syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&line[0])), 1)
}
