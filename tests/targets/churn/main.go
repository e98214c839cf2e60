// Churn allocates without end, in rounds of three phases that it names on standard output: it grows a heap, frees
// most of it, and hands the free pages back to the system.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

const mb = 1 << 20

var (
	peak    = flag.Int("mb", 192, "MB of live heap at the top of a round")
	phase   = flag.Duration("phase", 1500*time.Millisecond, "length of each phase")
	seconds = flag.Float64("seconds", 0, "when to end; 0: never")
	rounds  = flag.Int("rounds", 0, "rounds after which to end; 0: never")
)

type node struct {
	next    *node
	payload [104]byte
}

type chunk struct {
	nodes *node
	block []byte
}

// newChunk makes about 1 MB: half of it small objects with pointers, half a large object without.
func newChunk() chunk {
	made := chunk{block: make([]byte, mb/2)}
	for at := 0; at < len(made.block); at += 4096 {
		made.block[at] = 1
	}
	for i := 0; i < mb/2/112; i++ {
		made.nodes = &node{next: made.nodes}
	}
	return made
}

func say(started time.Time, name string, chunks int) {
	fmt.Printf("%7.2fs %-8s %4d MB live\n", time.Since(started).Seconds(), name, chunks)
}

func main() {
	flag.Parse()
	started := time.Now()
	if *seconds > 0 {
		time.AfterFunc(time.Duration(*seconds*float64(time.Second)), func() { os.Exit(0) })
	}
	var kept []chunk
	for round := 1; ; round++ {
		say(started, "grow", len(kept))
		step := *phase / time.Duration(*peak)
		for len(kept) < *peak {
			kept = append(kept, newChunk())
			time.Sleep(step)
		}
		say(started, "free", len(kept))
		for i := range kept {
			if i%5 != 0 {
				kept[i] = chunk{}
			}
		}
		survivors := kept[:0]
		for _, one := range kept {
			if one.block != nil {
				survivors = append(survivors, one)
			}
		}
		for i := len(survivors); i < len(kept); i++ {
			kept[i] = chunk{}
		}
		kept = survivors
		runtime.GC()
		time.Sleep(*phase)
		say(started, "scavenge", len(kept))
		debug.FreeOSMemory()
		if round == *rounds {
			return
		}
		time.Sleep(*phase)
	}
}
