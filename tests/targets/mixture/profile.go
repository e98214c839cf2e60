//go:build profiled

package main

import (
	"os"
	"runtime/pprof"
	"time"
)

// For so long as MIXTURE_SECONDS says; then the heap profile is in the file MIXTURE_PROFILE.
func init() {
	lasts, err := time.ParseDuration(os.Getenv("MIXTURE_SECONDS") + "s")
	if err != nil {
		panic(err)
	}
	go func() {
		time.Sleep(lasts)
		file, err := os.Create(os.Getenv("MIXTURE_PROFILE"))
		if err != nil {
			panic(err)
		}
		if err := pprof.Lookup("allocs").WriteTo(file, 0); err != nil {
			panic(err)
		}
		file.Close()
		os.Exit(0)
	}()
}
