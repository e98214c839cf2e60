//go:build profiled

package main

import (
	"os"
	"runtime"
)

// The linker turns the heap profile off where nothing reads one.
func init() {
	if os.Getenv("ALLOCLOOP_READS") != "" {
		runtime.MemProfile(nil, true)
	}
}
