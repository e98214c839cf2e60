// Census leaves goroutines and threads behind, waits until the collector has done with sweeping, and tells in one line
// of JSON what the runtime counts of itself: NumGoroutine and all scalar samples of runtime/metrics. Then it blocks in a
// raw system call, so that nothing follows the figures. End of file on fd 0 ends it.
package main

import (
	"encoding/json"
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"
	"unsafe"
)

var (
	goroutines = flag.Int("goroutines", 100, "goroutines to leave blocked")
	threads    = flag.Int("threads", 5, "goroutines, each in a system call on a thread of its own")
	ended      = flag.Int("ended", 50, "goroutines that have ended")
	megabytes  = flag.Int("mb", 30, "MB of small objects to keep")
	kept       [][]byte
	input      [1]byte
)

type census struct {
	Goroutines int                `json:"goroutines"`
	Procs      int                `json:"procs"`
	Metrics    map[string]float64 `json:"metrics"`
}

func count() census {
	var samples []metrics.Sample
	for _, one := range metrics.All() {
		if one.Kind != metrics.KindFloat64Histogram {
			samples = append(samples, metrics.Sample{Name: one.Name})
		}
	}
	metrics.Read(samples)
	counted := census{Procs: runtime.GOMAXPROCS(0), Metrics: map[string]float64{}}
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			counted.Metrics[sample.Name] = float64(sample.Value.Uint64())
		case metrics.KindFloat64:
			counted.Metrics[sample.Name] = sample.Value.Float64()
		}
	}
	return counted
}

func main() {
	flag.Parse()
	forever, done := make(chan bool), make(chan bool)
	for i := 0; i < *goroutines; i++ {
		go func() { <-forever }()
	}
	for i := 0; i < *threads; i++ {
		var ends [2]int
		syscall.Pipe(ends[:])
		go func() { syscall.Read(ends[0], make([]byte, 1)) }()
	}
	for i := 0; i < *ended; i++ {
		go func() { done <- true }()
	}
	for i := 0; i < *ended; i++ {
		<-done
	}
	for i := 0; i < *megabytes<<10; i++ {
		object := make([]byte, 16<<(i%8))
		if i%3 != 0 {
			kept = append(kept, object)
		}
	}
	debug.SetGCPercent(-1)
	runtime.GC()
	json.Marshal(count())
	runtime.GC()
	time.Sleep(300 * time.Millisecond)
	told := count()
	told.Goroutines = runtime.NumGoroutine()
	line, _ := json.Marshal(told)
	line = append(line, '\n')
	os.Stdout.Write(line)
	for {
		got, _, failure := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&input)), 1)
		if failure != syscall.EINTR && failure != syscall.EAGAIN && got == 0 {
			os.Exit(0)
		}
	}
}
