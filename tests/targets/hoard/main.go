// Hoard waits for a line of its input, then keeps what it allocates: most of it in guilty, a little in innocent, and as
// much again is garbage. It writes to its output how many bytes guilty has allocated so far, a line each time. When it
// holds what its flags say, it ends with their exit code, or waits for another line.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"
)

const (
	mb   = 1 << 20
	step = 10 * time.Millisecond
)

var (
	most    = flag.Int("mb", 1024, "MB to keep")
	rate    = flag.Int("rate", 16, "MB to keep in a second")
	code    = flag.Int("code", -1, "what to exit with then; -1: wait for another line")
	profile = flag.Bool("profile", false, "make a heap profile, which keeps the linker from turning profiling off")

	kept    [][]byte
	garbage []byte
)

func touched(bytes int) []byte {
	made := make([]byte, bytes)
	for at := 0; at < bytes; at += 4096 {
		made[at] = 1
	}
	return made
}

//go:noinline
func guilty() { kept = append(kept, touched(28<<10)) }

//go:noinline
func innocent() { kept = append(kept, touched(4<<10)) }

//go:noinline
func wasteful() { garbage = touched(32 << 10) }

func main() {
	flag.Parse()
	lines := bufio.NewScanner(os.Stdin)
	lines.Scan()
	for held := 0; held < *most*mb; {
		for end := held + *rate*mb/int(time.Second/step); held < end; held += 32 << 10 {
			guilty()
			innocent()
			wasteful()
		}
		fmt.Println(held / 8 * 7)
		time.Sleep(step)
	}
	if *profile {
		pprof.WriteHeapProfile(io.Discard)
	}
	if *code >= 0 {
		os.Exit(*code)
	}
	lines.Scan()
}
