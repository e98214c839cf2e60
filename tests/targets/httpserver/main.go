// Httpserver answers small JSON requests over connections that are kept alive, or with -load asks another one for
// them. Both write at a fixed interval how many requests there have been so far: lines of three numbers, nanoseconds
// since the start (monotonic), requests, nanoseconds of CPU time. The server's first line is its address.
package main

import (
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

var (
	load        = flag.String("load", "", "ADDRESS of a server to ask; empty: be one")
	connections = flag.Int("connections", 16, "how many connections ask at once")
	every       = flag.Duration("every", 100*time.Millisecond, "interval of the lines")
	requests    atomic.Uint64
)

func main() {
	flag.Parse()
	if *load == "" {
		fmt.Println(serve())
	} else {
		for i := 0; i < *connections; i++ {
			go ask(*load, i)
		}
	}
	tell(*every, requests.Load)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
