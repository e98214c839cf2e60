package main

import (
	"runtime"
	"sync/atomic"
	"time"
)

type node struct {
	next *node
	rest [7]*node
}

var (
	head *node
	sink []byte
	wait = make(chan int)
	down int32 // goroutines that are as deep as they go
)

func nodes(bytes int) {
	for size := 0; size < bytes; size += 64 {
		head = &node{next: head}
	}
}

func garbage(pieces int, rest time.Duration) {
	every(rest, func() {
		for i := 0; i < pieces; i++ {
			sink = make([]byte, 1024)
		}
	})
}

// LiveAtLimit has more alive than GOMEMLIMIT allows, and goes on allocating.
func liveAtLimit() {
	nodes(80 << 20)
	garbage(1000, 0)
	time.Sleep(2 * time.Second)
}

//go:noinline
func deep(n int) int {
	var frame [512]byte
	frame[n%512] = 1
	if n == 0 {
		atomic.AddInt32(&down, 1)
		return <-wait + int(frame[3])
	}
	return deep(n-1) + int(frame[n%512])
}

func stacks(count, depth int) {
	for i := 0; i < count; i++ {
		go deep(depth)
	}
	for int(atomic.LoadInt32(&down)) < count {
		time.Sleep(time.Millisecond)
	}
}

func stacksAtLimit() {
	stacks(7000, 12)
	garbage(1000, 0)
	time.Sleep(2 * time.Second)
}

//go:noinline
func left(path, depth int) { climb(path>>1, depth-1) }

//go:noinline
func right(path, depth int) { climb(path>>1, depth-1) }

func climb(path, depth int) {
	if depth == 0 {
		sink = make([]byte, 16)
		return
	}
	if path&1 == 0 {
		left(path, depth)
	} else {
		right(path, depth)
	}
}

// Buckets allocates from 2^depth call stacks, of which the heap profile remembers each.
func buckets(depth int) {
	runtime.MemProfileRate = 1
	for path := 0; path < 1<<depth; path++ {
		climb(path, depth)
	}
	runtime.MemProfileRate = 0
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1)
	runtime.MemProfile(records, true)
}

func bucketsAtLimit() {
	buckets(17)
	garbage(1000, 0)
	time.Sleep(2 * time.Second)
}

// GarbageAtLimit lets the limit alone begin collections, which cost little.
func garbageAtLimit() {
	nodes(8 << 20)
	garbage(400, time.Millisecond)
	time.Sleep(2500 * time.Millisecond)
}

// LimitAhead grows towards its limit.
func limitAhead() {
	nodes(20 << 20)
	every(10*time.Millisecond, func() { nodes(100 << 10) })
	every(100*time.Millisecond, runtime.GC)
}

// WideGoal may grow to nine times of what is alive.
func wideGoal() {
	nodes(40 << 20)
	runtime.GC()
}

// Spike has had much in use for a moment; only one collection has run since.
func spike() {
	nodes(10 << 20)
	hold(150)
	held = nil
	runtime.GC()
}
