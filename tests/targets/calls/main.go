// Calls makes one system call again and again, and prints what each cost it: a line of nanoseconds of CPU time for
// every round of calls, until it is ended. With -every it pauses between rounds, with -rounds it ends after so many.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

const clockThreadCPU = 3

func threadTime() int64 {
	var now syscall.Timespec
	_, _, failure := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockThreadCPU, uintptr(unsafe.Pointer(&now)), 0)
	if failure != 0 {
		panic(failure)
	}
	return now.Nano()
}

func main() {
	name := flag.String("call", "getppid", "getppid or madvise")
	calls := flag.Int("calls", 200000, "in a round")
	rounds := flag.Int("rounds", 0, "when to end; 0: never")
	every := flag.Duration("every", 0, "pause between rounds")
	flag.Parse()
	runtime.LockOSThread()
	page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		panic(err)
	}
	number, address, size, advice := uintptr(syscall.SYS_GETPPID), uintptr(0), uintptr(0), uintptr(0)
	if *name == "madvise" {
		number, address = syscall.SYS_MADVISE, uintptr(unsafe.Pointer(&page[0]))
		size, advice = uintptr(len(page)), syscall.MADV_DONTNEED
	}
	for round := 0; *rounds == 0 || round < *rounds; round++ {
		begin := threadTime()
		for i := 0; i < *calls; i++ {
			syscall.RawSyscall(number, address, size, advice)
		}
		fmt.Printf("%.1f\n", float64(threadTime()-begin)/float64(*calls))
		time.Sleep(*every)
	}
}
