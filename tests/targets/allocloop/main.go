// Allocloop makes as many 16-byte objects as it can, on every P, and writes at a fixed interval how many there have
// been so far: lines of three numbers, nanoseconds since its start (monotonic), objects, nanoseconds of CPU time.
package main

import (
	"bufio"
	"flag"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const batch = 1024

type object struct{ words [2]uint64 }

// counter has a cache line pair of its own.
type counter struct {
	objects uint64
	_       [120]byte
}

var (
	every   = flag.Duration("every", 100*time.Millisecond, "interval of the lines")
	ballast = flag.Int("ballast", 64, "MB of pointer-free heap, so that collections come at a usual rate")
	seconds = flag.Float64("seconds", 0, "when to end; 0: never")
)

func work(done *counter) {
	var kept [batch]*object
	for {
		for i := range kept {
			kept[i] = escape(uint64(i))
		}
		atomic.AddUint64(&done.objects, batch)
	}
}

//go:noinline
func escape(value uint64) *object { return &object{[2]uint64{value, value}} }

// cpuTime returns the nanoseconds of CPU that all threads have used, in steps of 1000.
func cpuTime() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func main() {
	flag.Parse()
	weight := make([]byte, *ballast<<20)
	workers := runtime.GOMAXPROCS(0)
	counters := make([]counter, workers)
	started := time.Now()
	for i := range counters {
		go work(&counters[i])
	}
	out := bufio.NewWriter(os.Stdout)
	line := make([]byte, 0, 64)
	for range time.Tick(*every) {
		var total uint64
		for i := range counters {
			total += atomic.LoadUint64(&counters[i].objects)
		}
		elapsed := time.Since(started)
		line = strconv.AppendInt(line[:0], int64(elapsed), 10)
		line = append(line, ' ')
		line = append(strconv.AppendUint(line, total, 10), ' ')
		line = append(strconv.AppendInt(line, cpuTime(), 10), '\n')
		out.Write(line)
		if out.Flush() != nil || *seconds > 0 && elapsed.Seconds() >= *seconds {
			break
		}
	}
	runtime.KeepAlive(weight)
}
