// Atlimit stands where its flags put it: goroutines with deep stacks, memory that is alive, free heap. For each line on
// its standard input it does what the line says, and then writes one line of JSON: what runtime.MemStats and
// runtime/metrics say.
//
//	work 500ms   makes garbage for so long, or none with 0s
//	drop 200     lets go of so many MB of what is alive
//	keep 200     makes so many MB of blocks more that are alive
//	limit 64     debug.SetMemoryLimit of so many MB
//	gc           runtime.GC()
//	free         debug.FreeOSMemory()
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"
)

const block = 64 << 10

var (
	stacks  = flag.Int("stacks", 0, "goroutines whose stacks have 16 KB")
	live    = flag.Int("live", 0, "MB of nodes with pointers that are kept")
	buffers = flag.Int("buffers", 0, "MB of blocks of 64 KB without pointers that are kept")
	rest    = flag.Duration("rest", 0, "pause after each 100 pieces of garbage")
	piece   = flag.Int("piece", 1024, "bytes of one piece of garbage")

	head *node
	kept [][]byte
	sink []byte
	wait = make(chan int)
)

type node struct {
	next *node
	rest [7]*node
}

//go:noinline
func deep(n int) int {
	var frame [512]byte
	frame[n%512] = 1
	if n == 0 {
		return <-wait + int(frame[3])
	}
	return deep(n-1) + int(frame[n%512])
}

func buffer(bytes int) {
	for size := 0; size < bytes; size += block {
		one := make([]byte, block)
		for at := 0; at < block; at += 4096 {
			one[at] = 1
		}
		kept = append(kept, one)
	}
}

func keep() {
	for size := 0; size < *live<<20; size += 64 {
		head = &node{next: head}
	}
	buffer(*buffers << 20)
	for i := 0; i < *stacks; i++ {
		go deep(12)
	}
}

func work(length time.Duration) {
	for start := time.Now(); time.Since(start) < length; {
		for i := 0; i < 100; i++ {
			sink = make([]byte, *piece)
		}
		time.Sleep(*rest)
	}
}

func megabytes(word string) int {
	var size int
	if _, err := fmt.Sscan(word, &size); err != nil {
		panic(err)
	}
	return size << 20
}

func figures() map[string]interface{} {
	known := metrics.All()
	samples := make([]metrics.Sample, len(known))
	for i, one := range known {
		samples[i].Name = one.Name
	}
	found := map[string]interface{}{}
	var stats runtime.MemStats
	metrics.Read(samples)
	runtime.ReadMemStats(&stats)
	for _, sample := range samples {
		switch sample.Value.Kind() {
		case metrics.KindUint64:
			found[sample.Name] = sample.Value.Uint64()
		case metrics.KindFloat64:
			found[sample.Name] = sample.Value.Float64()
		}
	}
	found["MemStats"] = stats
	return found
}

func main() {
	flag.Parse()
	keep()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := append(strings.Fields(lines.Text()), "", "")
		switch words[0] {
		case "work":
			length, err := time.ParseDuration(words[1])
			if err != nil {
				panic(err)
			}
			work(length)
		case "drop":
			kept = append([][]byte(nil), kept[megabytes(words[1])/block:]...)
		case "keep":
			buffer(megabytes(words[1]))
		case "limit":
			debug.SetMemoryLimit(int64(megabytes(words[1])))
		case "gc":
			runtime.GC()
		case "free":
			debug.FreeOSMemory()
		}
		if err := json.NewEncoder(os.Stdout).Encode(figures()); err != nil {
			panic(err)
		}
	}
	runtime.KeepAlive(head)
}
