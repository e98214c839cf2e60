// Ccases has the programs of tests/cases in which C takes the memory; see tests/targets/cases.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <pthread.h>

static void *volatile last;

// Arenas are left with free chunks between a few that are used: none of it can be trimmed.
static void churn(int count) {
	char **some = malloc(count * sizeof(char *));
	for (int i = 0; i < count; i++) {
		some[i] = malloc(20000);
		memset(some[i], 1, 20000);
		if (i % 50 == 0) {
			last = memset(malloc(64), 1, 64);
		}
	}
	for (int i = 0; i < count; i++) {
		free(some[i]);
	}
	free(some);
	usleep(100000);
}

static void *taken(int size) {
	return memset(malloc(size), 1, size);
}

static void leak(int size) {
	last = memset(malloc(size), 1, size);
}

static int deep(int depth) {
	volatile char frame[16384];
	memset((char *)frame, depth, sizeof frame);
	if (depth > 0) {
		return deep(depth - 1) + frame[7];
	}
	return frame[3];
}

static void block(void) {
	deep(40);
	pause();
}
*/
import "C"

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

var programs = map[string]func(){"arenas": arenas, "c-leak": cLeak, "c-held": cHeld, "c-threads": cThreads,
	"finalized": func() { handles(false) }, "closed": func() { handles(true) }}

// Arenas has eight threads, each with an arena that is nearly free.
func arenas() {
	var done sync.WaitGroup
	for i := 0; i < 8; i++ {
		done.Add(1)
		go func() {
			runtime.LockOSThread()
			C.churn(1000)
			done.Done()
			time.Sleep(time.Hour)
		}()
	}
	done.Wait()
}

func cLeak() {
	go func() {
		for {
			C.leak(128 << 10)
			time.Sleep(5 * time.Millisecond)
		}
	}()
}

type handle struct {
	memory unsafe.Pointer
	name   string
}

func (h *handle) free() {
	C.free(h.memory)
	runtime.SetFinalizer(h, nil)
}

// Handles are small objects of Go that each have 96 KB of C, which their finalizers free. What is taken from a closed one
// is freed at once; a hundred stay in use. A signal makes a collection.
func handles(closed bool) {
	var used [100]*handle
	collect := make(chan os.Signal, 1)
	signal.Notify(collect, syscall.SIGUSR1)
	go func() {
		for range collect {
			runtime.GC()
		}
	}()
	go func() {
		for n := 0; ; n++ {
			one := &handle{memory: C.taken(96 << 10)}
			runtime.SetFinalizer(one, (*handle).free)
			if old := used[n%len(used)]; old != nil && closed {
				old.free()
			}
			used[n%len(used)] = one
			time.Sleep(10 * time.Millisecond)
		}
	}()
}

func cHeld() {
	for i := 0; i < 120; i++ {
		C.leak(1 << 20)
	}
}

// CThreads has calls that do not return, each below a deep stack of C.
func cThreads() {
	for i := 0; i < 150; i++ {
		go C.block()
	}
	time.Sleep(700 * time.Millisecond)
}

func main() {
	programs[os.Args[1]]()
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}
