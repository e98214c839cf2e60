package main

import (
	"runtime"
	"time"
)

type thing struct {
	next *thing
	rest [48]byte
}

var (
	timers []*time.Timer
	things []*thing
	gate   = make(chan struct{})
	leaf   []byte
)

func fire() {}

func finalize(*thing) {}

func block(*thing) { <-gate }

func makeTimers(count int) {
	for ; count > 0; count-- {
		timers = append(timers, time.AfterFunc(time.Hour, fire))
	}
}

func stopTimers() {
	for _, one := range timers {
		one.Stop()
	}
	timers = nil
}

func makeThings(count int, finalizer func(*thing)) {
	for ; count > 0; count-- {
		one := new(thing)
		runtime.SetFinalizer(one, finalizer)
		things = append(things, one)
	}
}

// tree allocates from as many different stacks as two to the power of depth.
func tree(depth int) {
	if depth == 0 {
		leaf = make([]byte, 8)
		return
	}
	tree(depth - 1)
	tree(depth - 1)
}

func doWaiting(what string, count int) bool {
	switch what {
	case "timers":
		makeTimers(count)
	case "stop":
		stopTimers()
	case "finalizers":
		makeThings(count, finalize)
	case "stuck":
		makeThings(1, block)
		things = nil
		runtime.GC()
	case "open":
		close(gate)
	case "cleanups":
		makeCleanups(count)
	case "forget":
		things = nil
		// A finalizer runs after a collection; the next one frees what it was of.
		for ; count > 0; count-- {
			runtime.GC()
		}
	case "stacks":
		tree(count)
	default:
		return false
	}
	return true
}
