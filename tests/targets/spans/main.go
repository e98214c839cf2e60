// Spans holds a heap of one-object spans of 8 KB, the most spans that a heap of its size can have. Fresh memory is
// zero already, so the runtime does not touch it: of 10 GB only what -touch asks for becomes resident. When it stands
// still it says so on standard output, and blocks until standard input ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

const size = 8192

var (
	megabytes = flag.Int("mb", 100, "MB of heap")
	touch     = flag.Int("touch", 8, "write to one of so many objects; 0: to none")
	drop      = flag.Int("drop", 32, "free one of so many objects at random; 0: none")
	scavenge  = flag.Bool("scavenge", false, "debug.FreeOSMemory() after that")
	random    = uint64(88172645463325252)
	kept      []*[size]byte
)

func next() uint64 {
	random ^= random << 13
	random ^= random >> 7
	random ^= random << 17
	return random
}

func main() {
	flag.Parse()
	debug.SetGCPercent(-1)
	kept = make([]*[size]byte, *megabytes<<20/size)
	for i := range kept {
		kept[i] = new([size]byte)
		if *touch > 0 && i%*touch == 0 {
			kept[i][0] = 1
		}
	}
	for i := range kept {
		if *drop > 0 && next()%uint64(*drop) == 0 {
			kept[i] = nil
		}
	}
	runtime.GC()
	runtime.GC()
	if *scavenge {
		debug.FreeOSMemory()
	}
	fmt.Println("standing still", len(kept))
	os.Stdin.Read(make([]byte, 1))
	runtime.KeepAlive(kept)
}
