// Arenas has threads in C of which each allocates BLOCKS blocks of 20 KB, with a small one behind every 50th that stays:
// arenas THREADS BLOCKS free|hold. With "free" it frees the large ones. It writes what mallinfo2 says in a line of JSON
// and stands still until its standard input ends.
package main

/*
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

struct wide { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };

static struct wide told(void)
{
	struct wide (*wide)(void) = (struct wide (*)(void))dlsym(RTLD_DEFAULT, "mallinfo2");
	struct wide none = { 0 };
	return wide ? wide() : none;
}

static void work(int blocks, int frees)
{
	char **all = malloc(blocks * sizeof *all);
	for (int at = 0; at < blocks; at++) {
		all[at] = memset(malloc(20000), 1, 20000);
		if (at % 50 == 0)
			memset(malloc(64), 1, 64);
	}
	for (int at = 0; frees && at < blocks; at++)
		free(all[at]);
	if (frees)
		free(all);
}
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
)

func main() {
	threads, err := strconv.Atoi(os.Args[1])
	if err != nil {
		panic(err)
	}
	blocks, err := strconv.Atoi(os.Args[2])
	if err != nil {
		panic(err)
	}
	frees := C.int(0)
	if os.Args[3] == "free" {
		frees = 1
	}
	// All threads are there before the first allocates, so that each comes to an arena of its own.
	var begun, done sync.WaitGroup
	begun.Add(threads)
	done.Add(threads)
	stay := make(chan struct{})
	for at := 0; at < threads; at++ {
		go func() {
			runtime.LockOSThread()
			begun.Done()
			begun.Wait()
			C.work(C.int(blocks), frees)
			done.Done()
			<-stay
		}()
	}
	done.Wait()
	told := C.told()
	fmt.Printf("{\"arena\": %d, \"uordblks\": %d, \"fordblks\": %d, \"hblkhd\": %d, \"keepcost\": %d}\n",
		told.arena, told.uordblks, told.fordblks, told.hblkhd, told.keepcost)
	os.Stdin.Read(make([]byte, 1))
}
