//go:build go1.23

package main

import "iter"

var next func() (int, bool)

func coroutines() {
	next, _ = iter.Pull(func(yield func(int) bool) { yield(1); wait() })
	next()
}
