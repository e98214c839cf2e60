// Steady checks itself without end, and writes what it has done so far: lines of four numbers, nanoseconds since its
// start (monotonic), rounds, rounds that gave a wrong sum, nanoseconds of CPU time. Each round allocates blocks of
// several size classes and writes a pattern into them, lets another goroutine sum them up, and compares. It rests as
// long as it works, so that two of them and a tracer have room on two CPUs.
package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

const blocks = 64

var rounds, wrong uint64

func sum(in <-chan [][]byte, out chan<- uint64) {
	for made := range in {
		var total uint64
		for _, block := range made {
			for _, value := range block {
				total += uint64(value)
			}
		}
		out <- total
	}
}

func round(seed uint64, in chan<- [][]byte, out <-chan uint64) bool {
	made := make([][]byte, blocks)
	var expected uint64
	for i := range made {
		made[i] = make([]byte, 16<<(uint64(i)%10))
		for at := range made[i] {
			value := byte(seed + uint64(i*at))
			made[i][at] = value
			expected += uint64(value)
		}
	}
	in <- made
	return <-out == expected
}

func work() {
	in, out := make(chan [][]byte), make(chan uint64)
	go sum(in, out)
	begun := time.Now()
	for seed := uint64(1); ; seed++ {
		if !round(seed, in, out) {
			atomic.AddUint64(&wrong, 1)
		}
		atomic.AddUint64(&rounds, 1)
		if worked := time.Since(begun); worked > 5*time.Millisecond {
			time.Sleep(worked)
			begun = time.Now()
		}
	}
}

// cpuTime returns the nanoseconds of CPU that all threads have used.
func cpuTime() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	started := time.Now()
	go work()
	for range time.Tick(20 * time.Millisecond) {
		done, failed := atomic.LoadUint64(&rounds), atomic.LoadUint64(&wrong)
		if _, err := fmt.Println(time.Since(started).Nanoseconds(), done, failed, cpuTime()); err != nil {
			os.Exit(1)
		}
	}
}
