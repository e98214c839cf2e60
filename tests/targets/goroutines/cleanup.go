//go:build go1.25

package main

import "runtime"

// What a cleanup does belongs to the program.
func cleanup() {
	started.Add(1)
	one := &holder{"cleaned up"}
	runtime.AddCleanup(one, func(int) {
		started.Done()
		wait()
	}, 1)
}
