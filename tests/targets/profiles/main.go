// Profiles writes its own profiles into a directory: a heap before and after it grows, all allocations, goroutines, CPU.
package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

type node struct {
	next *node
	data [120]byte
}

var (
	kept  [][]byte
	nodes *node
	shed  [][]byte
)

//go:noinline
func leaf(size int) []byte { return make([]byte, size) }

// Inlined into its callers.
func inlined(size int) []byte { return leaf(size) }

//go:noinline
func grow(count int) {
	for i := 0; i < count; i++ {
		kept = append(kept, inlined(1000+i%7*1000))
	}
}

//go:noinline
func recurse(depth, count int) {
	if depth > 0 {
		recurse(depth-1, count)
		return
	}
	for i := 0; i < count; i++ {
		nodes = &node{next: nodes}
	}
}

//go:noinline
func generic[T any](count int) []T { return make([]T, count) }

func (n *node) method(count int) {
	func() { shed = append(shed, leaf(count)) }()
}

func spin(until time.Time) (sum int) {
	for time.Now().Before(until) {
		sum += len(generic[int](100))
	}
	return sum
}

func write(directory, name string) {
	file, err := os.Create(filepath.Join(directory, name+".pb.gz"))
	if err == nil {
		err = pprof.Lookup(name[:len(name)-len(filepath.Ext(name))]).WriteTo(file, 0)
	}
	if err != nil {
		panic(err)
	}
	file.Close()
}

func main() {
	runtime.MemProfileRate = 4096
	directory := os.Args[1]
	grow(200)
	new(node).method(1 << 20)
	runtime.GC()
	write(directory, "heap.before")
	grow(500)
	recurse(10, 3000)
	shed = nil
	kept = append(kept, generic[byte](1<<20))
	runtime.GC()
	write(directory, "heap.after")
	write(directory, "allocs.after")
	labels := pprof.Labels("request", "one; two three", "é", "<b>")
	pprof.Do(context.Background(), labels, func(context.Context) {
		for i := 0; i < 3; i++ {
			go func() { select {} }()
		}
	})
	file, err := os.Create(filepath.Join(directory, "cpu.pb.gz"))
	if err == nil {
		err = pprof.StartCPUProfile(file)
	}
	if err != nil {
		panic(err)
	}
	pprof.Do(context.Background(), labels, func(context.Context) { spin(time.Now().Add(150 * time.Millisecond)) })
	pprof.StopCPUProfile()
	write(directory, "goroutine.after")
}
