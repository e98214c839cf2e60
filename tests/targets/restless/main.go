// Restless changes its address space in every way that a Go program has, in short rounds: it grows its heap and frees it,
// forces collections and the return of free pages, starts threads that end, maps memory by hand, calls C's malloc where
// it was built with cgo, and loads plugins where it was built with the tag plugins. At the end it writes as JSON how many
// collections there were, and makes a last one.
package main

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	mb           = 1 << 20
	remapMayMove = 1
)

var (
	seconds = flag.Float64("seconds", 2, "when to end")
	peak    = flag.Int("mb", 48, "MB of live heap at the top of a round")
	huge    = flag.Int("huge", 80, "MB of one block, larger than an arena")
	rest    = flag.Duration("rest", 0, "rest between two rounds")
	while   = flag.String("while", "", "go on after the seconds while this file is there, but no longer than a minute")
	plugins = flag.String("plugins", "", "plugins to load, separated by commas; one works in each of the first rounds")
	after   = flag.String("after", "", "wait until this file is gone before the plugins work")
	sink    []byte
)

type node struct {
	next    *node
	payload [104]byte
}

func grow() ([]*node, [][]byte) {
	var nodes []*node
	var blocks [][]byte
	for i := 0; i < *peak; i++ {
		var head *node
		for j := 0; j < mb/4/112; j++ {
			head = &node{next: head}
		}
		nodes = append(nodes, head)
		for size := 32 << 10; size < mb; size = size*3 + 8192 {
			block := make([]byte, size)
			for at := 0; at < size; at += 4096 {
				block[at] = 1
			}
			blocks = append(blocks, block)
		}
		time.Sleep(time.Millisecond)
	}
	return nodes, blocks
}

// threads makes goroutines that keep their threads, and end with them.
func threads(count int) {
	var all sync.WaitGroup
	for i := 0; i < count; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			runtime.LockOSThread()
			byHand()
			allocateInC()
			time.Sleep(time.Millisecond)
		}()
	}
	all.Wait()
}

// byHand makes the system calls that other libraries make beside the runtime.
func byHand() {
	const size = 64 << 10
	const private = syscall.MAP_PRIVATE | syscall.MAP_ANON
	call := func(number uintptr, a, b, c, d uintptr) uintptr {
		result, _, _ := syscall.Syscall6(number, a, b, c, d, ^uintptr(0), 0)
		return result
	}
	at := call(syscall.SYS_MMAP, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, private)
	call(syscall.SYS_MPROTECT, at+8192, 8192, syscall.PROT_NONE, 0)
	call(syscall.SYS_MUNMAP, at+32768, 4096, 0, 0)
	at = call(syscall.SYS_MREMAP, at, 8192, 16*size, remapMayMove)
	call(syscall.SYS_MUNMAP, at, 8*size, 0, 0)
	call(syscall.SYS_MMAP, 0, 4096, syscall.PROT_READ, private)
	call(syscall.SYS_MPROTECT, 4096, 4096, syscall.PROT_NONE, 0) // fails: nothing is mapped there
}

func goOn(started time.Time) bool {
	ran := time.Since(started)
	if ran < time.Duration(*seconds*float64(time.Second)) {
		return true
	}
	return isThere(*while) && ran < time.Minute
}

func isThere(file string) bool {
	_, err := os.Stat(file)
	return file != "" && err == nil
}

func main() {
	flag.Parse()
	started := time.Now()
	var works []func(int)
	for _, path := range strings.FieldsFunc(*plugins, func(r rune) bool { return r == ',' }) {
		works = append(works, load(path))
	}
	for waited := 0; waited < 30_000 && isThere(*after); waited += 10 {
		time.Sleep(10 * time.Millisecond)
	}
	for round := 0; goOn(started); round++ {
		if round < len(works) {
			works[round](8 << 20)
		}
		nodes, blocks := grow()
		threads(4)
		for i := range blocks {
			if i%7 != 0 {
				blocks[i] = nil
			}
		}
		runtime.GC()
		time.Sleep(30 * time.Millisecond)
		if round%2 == 0 {
			sink = make([]byte, *huge*mb)
			sink[len(sink)/2] = 1
			sink = nil
		}
		runtime.KeepAlive(nodes)
		runtime.KeepAlive(blocks)
		if round%3 == 1 {
			debug.FreeOSMemory()
		}
		time.Sleep(*rest)
	}
	// A limit would have the calls behind the last collection scavenge on.
	debug.SetMemoryLimit(math.MaxInt64)
	debug.FreeOSMemory()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	json.NewEncoder(os.Stdout).Encode(map[string]uint64{"NumGC": uint64(stats.NumGC)})
	// Time for a last look, with nothing going on.
	time.Sleep(150 * time.Millisecond)
	// The line of scavtrace for what was scavenged since comes with the next cycle's sweep.
	runtime.GC()
	// That of gctrace is written after GC returns.
	time.Sleep(20 * time.Millisecond)
}
