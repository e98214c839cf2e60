//go:build go1.24

package main

import (
	"runtime"
	"weak"
)

var handles []weak.Pointer[thing]

func clean(int) {}

func makeCleanups(count int) {
	for ; count > 0; count-- {
		one := new(thing)
		runtime.AddCleanup(one, clean, count)
		handles = append(handles, weak.Make(one))
		things = append(things, one)
	}
}
