// Cases has a small program for each public thread that tests/cases/known.py lists; the first argument says which. It
// writes "ready" when it is as the thread has it, and what grows then grows on. End of file ends it.
package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

var programs = map[string]func(){
	"idle":           func() {},
	"freed":          freed,
	"given-back":     givenBack,
	"holes":          holes,
	"large":          large,
	"free-runs":      freeRuns,
	"map-of-deleted": mapOfDeleted,
	"pool":           pool,
	"locked":         locked,
	"huge-page":      hugePage,

	"live-at-limit":    liveAtLimit,
	"stacks-at-limit":  stacksAtLimit,
	"buckets-at-limit": bucketsAtLimit,
	"garbage-at-limit": garbageAtLimit,
	"limit-ahead":      limitAhead,
	"buckets":          func() { buckets(18) },
	"wide-goal":        wideGoal,
	"spike":            spike,

	"ended":         ended,
	"ended-stacks":  endedStacks,
	"deep":          deepStacks,
	"blocked":       blocked,
	"bodies":        bodies,
	"timers":        timers,
	"defers":        defers,
	"cycles":        cycles,
	"unbounded":     cache,
	"stuck-cleanup": stuckFinalizer,

	"read-file":    func() { mapFile(false, shared) },
	"written-file": func() { mapFile(true, shared) },
	"copied-file":  func() { mapFile(true, private) },
	"memfd":        memory,
	"reserve":      reserve,
	"fragments":    fragments,
	"refused":      refused,
	"cache":        pageCache,
	"anonymous":    func() { hold(140) },
	"small":        func() { hold(20) },
}

// Filled is memory in RAM.
func filled(size int) []byte {
	some := make([]byte, size)
	for at := 0; at < size; at += 4096 {
		some[at] = 1
	}
	return some
}

var held [][]byte

func hold(megabytes int) {
	for i := 0; i < megabytes; i++ {
		held = append(held, filled(1<<20))
	}
}

// Every does something again and again.
func every(pause time.Duration, do func()) {
	go func() {
		for {
			do()
			time.Sleep(pause)
		}
	}()
}

func main() {
	programs[os.Args[1]]()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
