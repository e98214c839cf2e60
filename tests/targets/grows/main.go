// Grows makes garbage all the time, so that there are many collections, and keeps some of what it makes, by -mode:
// "leak" keeps -rate MB a second; "warm" does so for -for, and nothing after that, as a cache that has filled; "breathe"
// keeps up to -rate times -for and drops it all again, over and over. It keeps -base MB from the start on.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

const block = 64 << 10

var (
	mode    = flag.String("mode", "leak", "leak, warm or breathe")
	base    = flag.Int("base", 16, "MB")
	rate    = flag.Int("rate", 12, "MB a second")
	span    = flag.Duration("for", 2*time.Second, "of warm and breathe")
	garbage = flag.Int("garbage", 80, "MB a second")
	kept    [][]byte
	sink    []byte
)

//go:noinline
func keep() { kept = append(kept, make([]byte, block)) }

//go:noinline
func drop() { sink = make([]byte, block) }

// due returns how many blocks of so many MB a second are due after a time.
func due(rate int, after time.Duration) int {
	return int(after.Seconds() * float64(rate) * (1 << 20) / block)
}

func main() {
	flag.Parse()
	for i := 0; i < *base<<20/block; i++ {
		keep()
	}
	if pprof.Lookup("heap") == nil { // without this the linker turns the heap profile off
		os.Exit(1)
	}
	fmt.Println("ready")
	held, begun, dropped := len(kept), time.Now(), 0
	for range time.Tick(5 * time.Millisecond) {
		since := time.Since(begun)
		for ; dropped < due(*garbage, since); dropped++ {
			drop()
		}
		switch *mode {
		case "warm":
			if since > *span {
				since = *span
			}
		case "breathe":
			since %= *span
		}
		wanted := held + due(*rate, since)
		if wanted < len(kept) {
			kept = append([][]byte(nil), kept[:held]...)
		}
		for len(kept) < wanted {
			keep()
		}
	}
}
