package main

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// What grows by 64 KB grows so slowly that it may be watched for minutes, and at its own pace on a busy machine, too.
const pause = 4 * time.Millisecond

func crowd(count int) {
	var done sync.WaitGroup
	done.Add(count)
	release := make(chan int)
	for i := 0; i < count; i++ {
		go func() { <-release; done.Done() }()
	}
	close(release)
	done.Wait()
	for runtime.NumGoroutine() > 50 {
		time.Sleep(time.Millisecond)
	}
}

// Ended had a crowd of goroutines, and has given back what can be.
func ended() {
	crowd(80_000)
	debug.FreeOSMemory()
}

// EndedStacks had one, and only collects.
func endedStacks() {
	crowd(60_000)
	runtime.GC()
	runtime.GC()
}

func deepStacks() { stacks(3000, 40) }

// Blocked starts goroutines that wait for what never comes.
func blocked() {
	queue := make(chan []byte)
	every(2*time.Millisecond, func() {
		go func() {
			select {
			case queue <- make([]byte, 1024):
			case <-time.After(time.Hour):
			}
		}()
	})
}

// Bodies never closes the bodies of responses.
func bodies() {
	server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, from *http.Request) {
		to.Write(make([]byte, 100_000))
	}))
	every(5*time.Millisecond, func() {
		if _, err := http.Get(server.URL); err != nil {
			panic(err)
		}
	})
}

// Timers are waited for by nobody, and not stopped.
func timers() {
	for i := 0; i < 400_000; i++ {
		time.AfterFunc(time.Hour, func() { sink = nil })
	}
	runtime.GC()
}

// Defers run at the end of a function that does not end.
func defers() {
	go func() {
		for {
			body := filled(64 << 10)
			defer func() { sink = body }()
			time.Sleep(pause)
		}
	}()
	every(100*time.Millisecond, runtime.GC)
}

type ring struct {
	next *ring
	body []byte
}

// Cycles with a finalizer are never freed.
func cycles() {
	every(pause, func() {
		one, other := &ring{body: filled(64 << 10)}, &ring{}
		one.next, other.next = other, one
		runtime.SetFinalizer(one, func(*ring) {})
		runtime.SetFinalizer(other, func(*ring) {})
	})
	every(100*time.Millisecond, runtime.GC)
}

// Cache forgets nothing that it was ever asked for.
func cache() {
	known := map[int][]byte{}
	every(pause, func() { known[len(known)] = filled(64 << 10) })
	every(100*time.Millisecond, runtime.GC)
}

type handle struct{ number [8]int64 }

// StuckFinalizer has one that never ends: no other runs.
func stuckFinalizer() {
	runtime.SetFinalizer(&handle{}, func(*handle) { <-wait })
	runtime.GC()
	time.Sleep(50 * time.Millisecond)
	for i := 0; i < 200_000; i++ {
		runtime.SetFinalizer(&handle{}, func(*handle) {})
	}
	runtime.GC()
	every(100*time.Millisecond, func() {
		for i := 0; i < 5_000; i++ {
			runtime.SetFinalizer(&handle{}, func(*handle) {})
		}
		runtime.GC()
	})
}
