//go:build profiled

package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
)

// When it is told to end (SIGTERM), its heap profile is in the file MIXTURE_PROFILE.
func init() {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	go func() {
		<-told
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
