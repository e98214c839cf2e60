// Cthreads has goroutines in C calls that never return, each of which has written to its thread's stack:
// cthreads THREADS BYTES HEAP, with HEAP bytes from malloc beside them. It writes a line of JSON and stands still until
// its standard input ends.
package main

/*
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int waiting;

__attribute__((noinline)) static void touch(size_t left)
{
	volatile char page[4096];
	memset((void *)page, 1, sizeof page);
	if (left > sizeof page)
		touch(left - sizeof page);
	page[0] = 2; // no tail call
}

static void stay(size_t bytes)
{
	touch(bytes);
	__atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
	for (;;)
		pause();
}

static int stayed(void)
{
	return __atomic_load_n(&waiting, __ATOMIC_SEQ_CST);
}

static void *written(size_t bytes)
{
	char *memory = malloc(bytes);
	return memory ? memset(memory, 1, bytes) : NULL;
}
*/
import "C"

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

func main() {
	var numbers [3]int
	for at := range numbers {
		number, err := strconv.Atoi(os.Args[at+1])
		if err != nil {
			panic(err)
		}
		numbers[at] = number
	}
	for at := 0; at < numbers[0]; at++ {
		go C.stay(C.size_t(numbers[1]))
	}
	for int(C.stayed()) < numbers[0] {
		time.Sleep(time.Millisecond)
	}
	if numbers[2] > 0 && C.written(C.size_t(numbers[2])) == nil {
		panic("malloc failed")
	}
	fmt.Println("{}")
	os.Stdin.Read(make([]byte, 1))
}
