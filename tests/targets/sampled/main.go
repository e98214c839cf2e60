// Sampled has profiles of many call stacks, and tells how many records each has: "memory", "block" and "mutex".
//
// Each line of its input says from how many stacks to allocate objects of three sizes ("memory 10": 1024), to block
// ("block 5"), to let another goroutine wait for a mutex ("mutex 4"), or to do nothing ("count 0"); it answers with one
// line. In between nothing is sampled, but for an object or two that a P had in mind.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

var (
	sink  []byte
	bell  = make(chan int)
	guard sync.Mutex
)

//go:noinline
func left(path, depth int, do func()) { climb(path>>1, depth-1, do) }

//go:noinline
func right(path, depth int, do func()) { climb(path>>1, depth-1, do) }

// Each path of so many bits is another call stack.
func climb(path, depth int, do func()) {
	if depth == 0 {
		do()
		return
	}
	if path&1 == 0 {
		left(path, depth, do)
	} else {
		right(path, depth, do)
	}
}

func allocate() {
	for size := 16; size <= 64; size *= 2 {
		sink = make([]byte, size)
	}
}

func block() { <-bell }

func contend() {
	guard.Lock()
	waits := make(chan bool)
	go func() {
		waits <- true
		guard.Lock()
		guard.Unlock()
		waits <- true
	}()
	<-waits
	time.Sleep(time.Millisecond)
	guard.Unlock()
	<-waits
}

func main() {
	runtime.MemProfileRate = 0
	go func() {
		for {
			time.Sleep(100 * time.Microsecond)
			bell <- 1
		}
	}()
	output, input := json.NewEncoder(os.Stdout), bufio.NewScanner(os.Stdin)
	for input.Scan() {
		var kind string
		var depth int
		if _, err := fmt.Sscan(input.Text(), &kind, &depth); err != nil {
			panic(err)
		}
		do := map[string]func(){"memory": allocate, "block": block, "mutex": contend}[kind]
		switch kind {
		case "memory":
			runtime.MemProfileRate = 1
		case "block":
			runtime.SetBlockProfileRate(1)
		case "mutex":
			runtime.SetMutexProfileFraction(1)
		}
		for path := 0; do != nil && path < 1<<depth; path++ {
			climb(path, depth, do)
		}
		runtime.MemProfileRate = 0
		runtime.SetBlockProfileRate(0)
		runtime.SetMutexProfileFraction(0)
		told := map[string]int{}
		told["memory"], _ = runtime.MemProfile(nil, true)
		told["block"], _ = runtime.BlockProfile(nil)
		told["mutex"], _ = runtime.MutexProfile(nil)
		output.Encode(told)
	}
}
