// Grower grows by what its input tells it, a line each: "cache N", "garbage N" and "file N" megabytes, "spawn N"
// goroutines; "collect" collects, "forget" drops the cache and gives back all that is free. Then it stands still and
// writes its own MemStats in a line. "shrink" halves the number of goroutines.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"syscall"
	"time"
)

const (
	mb    = 1 << 20
	piece = 64 << 10
)

type cache struct{ kept [][]byte }

//go:noinline
func (c *cache) put() {
	value := make([]byte, piece)
	for at := 0; at < piece; at += 4096 {
		value[at] = 1
	}
	c.kept = append(c.kept, value)
}

var (
	store   = &cache{kept: make([][]byte, 0, 1<<16)}
	garbage []byte
	total   int
	end     = make(chan int)
)

//go:noinline
func fill(megabytes int) {
	for i := 0; i < megabytes*mb/piece; i++ {
		store.put()
	}
}

//go:noinline
func waste(megabytes int) {
	for i := 0; i < megabytes*mb/piece; i++ {
		garbage = make([]byte, piece)
		for at := 0; at < piece; at += 4096 {
			garbage[at] = 1
		}
	}
}

//go:noinline
func spawn(count int) {
	for i := 0; i < count; i++ {
		go func() { <-end }()
	}
	for runtime.NumGoroutine() < count {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
}

func shrink() {
	for half := runtime.NumGoroutine() / 2; half > 0; half-- {
		end <- 1
	}
	time.Sleep(50 * time.Millisecond)
}

func mapFile(megabytes int) {
	file, err := os.OpenFile(os.Args[1], os.O_RDWR|os.O_CREATE, 0o600)
	page := make([]byte, 4096)
	for at := 0; at < megabytes*mb && err == nil; at += len(page) {
		_, err = file.Write(page)
	}
	if err != nil {
		panic(err)
	}
	some, err := syscall.Mmap(int(file.Fd()), 0, megabytes*mb, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	for at := 0; at < len(some); at += 4096 {
		total += int(some[at])
	}
}

func main() {
	debug.SetGCPercent(-1)
	runtime.MemProfileRate = 4096
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var command string
		var size int
		fmt.Sscan(input.Text(), &command, &size)
		switch command {
		case "cache":
			fill(size)
			runtime.GC()
			runtime.GC()
		case "garbage":
			waste(size)
		case "collect":
			garbage = nil
			runtime.GC()
		case "spawn":
			spawn(size)
		case "shrink":
			shrink()
		case "file":
			mapFile(size)
		case "forget":
			store.kept = store.kept[:0]
			clear := store.kept[:cap(store.kept)]
			for at := range clear {
				clear[at] = nil
			}
			debug.FreeOSMemory()
		case "profile":
			pprof.WriteHeapProfile(io.Discard)
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		json.NewEncoder(os.Stdout).Encode(map[string]uint64{
			"HeapInuse": stats.HeapInuse, "HeapAlloc": stats.HeapAlloc, "StackInuse": stats.StackInuse,
			"Retained": stats.HeapIdle - stats.HeapReleased, "Goroutines": uint64(runtime.NumGoroutine()),
		})
	}
}
