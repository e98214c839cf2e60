//go:build cgo

package main

/*
#include <unistd.h>
extern void fromGo(int);
static void rest(void) { for (;;) pause(); }
static void through(int depth) { fromGo(depth); }
*/
import "C"

//export fromGo
func fromGo(depth C.int) {
	if depth > 0 {
		C.through(depth - 1)
	}
	waitTwice()
}

// Goroutines in C, and in Go that is called by C that is called by Go.
func fromC() {
	times(func() { C.rest() })
	times(func() { C.through(0) })
	start(func() { C.through(3) })
}
