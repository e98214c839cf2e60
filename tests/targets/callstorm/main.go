// Callstorm makes memory system calls at a given rate: each line on its standard input is the number of calls per
// second that all threads together shall make from then on, 0 for none. It answers with a line once it has changed
// over: how many calls it had made by then. A thread maps 64 KB, advises, unmaps, and begins again; where it is late,
// it catches up.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	size  = 64 << 10
	round = 3                      // calls
	burst = 200 * time.Microsecond // how long a thread sleeps at most between two of its rounds
)

var (
	threads = flag.Int("threads", 3, "how many threads make calls")
	rate    atomic.Int64 // calls per second of each thread, times 1000
	changes atomic.Int64
	calls   atomic.Uint64
)

func must(errno syscall.Errno) {
	if errno != 0 {
		fmt.Fprintln(os.Stderr, errno)
		os.Exit(1)
	}
}

func once() {
	address, _, errno := syscall.RawSyscall6(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE, ^uintptr(0), 0)
	must(errno)
	_, _, errno = syscall.RawSyscall(syscall.SYS_MADVISE, address, size, syscall.MADV_DONTNEED)
	must(errno)
	_, _, errno = syscall.RawSyscall(syscall.SYS_MUNMAP, address, size, 0)
	must(errno)
	calls.Add(round)
}

func work() {
	runtime.LockOSThread()
	for {
		change, wanted := changes.Load(), rate.Load()
		begun, done := time.Now(), int64(0)
		for changes.Load() == change {
			due := int64(time.Since(begun).Seconds() * float64(wanted) / 1000)
			if done >= due {
				time.Sleep(burst)
				continue
			}
			once()
			done += round
		}
	}
}

func main() {
	flag.Parse()
	for i := 0; i < *threads; i++ {
		go work()
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		wanted, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		rate.Store(wanted * 1000 / int64(*threads))
		changes.Add(1)
		fmt.Println(calls.Load())
	}
}
