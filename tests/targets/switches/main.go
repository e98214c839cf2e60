// Switches passes a byte back and forth between its main thread and another one: each time it is received, one thread
// goes to sleep and the other wakes up. It prints a line of nanoseconds for every so many rounds of two switches each:
// CPU time of the process per round.
package main

import (
	"flag"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

func init() { runtime.LockOSThread() }

func cpuTime() int64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func pipe() (ends [2]int) {
	if err := syscall.Pipe(ends[:]); err != nil {
		panic(err)
	}
	return ends
}

// move makes a system call of which the runtime knows nothing, so that it does nothing about it.
func move(call uintptr, fd int, buffer *byte) {
	if n, _, failure := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(buffer)), 1); n != 1 {
		panic(failure)
	}
}

func main() {
	rounds := flag.Int("rounds", 20000, "for each line")
	flag.Parse()
	runtime.GOMAXPROCS(4) // each thread keeps its P while it sleeps, also on one CPU
	there, back := pipe(), pipe()
	go func() {
		runtime.LockOSThread()
		buffer := new(byte)
		for {
			move(syscall.SYS_READ, there[0], buffer)
			move(syscall.SYS_WRITE, back[1], buffer)
		}
	}()
	buffer := new(byte)
	for {
		begin := cpuTime()
		for i := 0; i < *rounds; i++ {
			move(syscall.SYS_WRITE, there[1], buffer)
			move(syscall.SYS_READ, back[0], buffer)
		}
		fmt.Printf("%.1f\n", float64(cpuTime()-begin)/float64(*rounds))
	}
}
