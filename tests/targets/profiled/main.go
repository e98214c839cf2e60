// Profiled allocates and collects garbage for a second, and writes its CPU profile to standard output: what a build
// with -pgo takes to inline and lay out the runtime otherwise.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"time"
)

var (
	kept [1 << 12][]*byte
	sink byte
)

func main() {
	var stats runtime.MemStats
	if err := pprof.StartCPUProfile(os.Stdout); err != nil {
		panic(err)
	}
	for i, end := 0, time.Now().Add(time.Second); time.Now().Before(end); i++ {
		for j := 0; j < 1000; j++ {
			kept[(i+j)%len(kept)] = []*byte{&sink, nil, &sink}
		}
		if i%1000 == 0 {
			runtime.ReadMemStats(&stats)
			debug.FreeOSMemory()
		}
	}
	pprof.StopCPUProfile()
}
