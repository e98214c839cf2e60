//go:build cgo

package main

/*
extern void fromGo(int);
static void through(int count) { for (int i = 0; i < count; i++) fromGo(i); }
*/
import "C"

//export fromGo
func fromGo(number C.int) { keep(bytesOf(900 + int(number))) }

// Allocates in Go called by C called by Go.
func fromC() { C.through(10) }
