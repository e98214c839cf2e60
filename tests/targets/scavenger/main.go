// Scavenger makes the runtime give memory back to the kernel and take it again, as fast as it can: it fills blocks,
// drops them, and has them scavenged, by debug.FreeOSMemory or, with -limit, by a memory limit just above what it
// needs. At a fixed interval it writes how much it has filled so far: lines of three numbers, nanoseconds since its
// start (monotonic), bytes, nanoseconds of CPU time.
package main

import (
	"flag"
	"runtime/debug"
	"sync/atomic"
	"time"
)

var (
	round   = flag.Int("mb", 64, "MB that are filled and dropped in a round")
	block   = flag.Int("block", 256, "KB of a block, or half of one")
	limited = flag.Bool("limit", false, "scavenge by a memory limit instead of debug.FreeOSMemory")
	every   = flag.Duration("every", 100*time.Millisecond, "interval of the lines")
	filled  atomic.Uint64
	kept    [][]byte
)

// fill writes to every OS page of new blocks.
func fill(blockBytes int) {
	kept = make([][]byte, 0, *round<<20/blockBytes)
	for len(kept) < cap(kept) {
		one := make([]byte, blockBytes)
		for at := 0; at < len(one); at += 4096 {
			one[at] = 1
		}
		kept = append(kept, one)
		filled.Add(uint64(blockBytes))
	}
}

func work() {
	if *limited {
		debug.SetMemoryLimit(int64(*round) << 20 * 5 / 4)
	}
	for number := 0; ; number++ {
		// Blocks of another size do not fit where the last ones were: under a limit, free pages must be given back.
		fill(*block << (10 + number%2))
		kept = nil
		if !*limited {
			debug.FreeOSMemory()
		}
	}
}

func main() {
	flag.Parse()
	go work()
	tell(*every, filled.Load)
}
