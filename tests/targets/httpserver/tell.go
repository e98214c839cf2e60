package main

import (
	"bufio"
	"os"
	"strconv"
	"syscall"
	"time"
)

// tell writes how much work is done, until nobody reads it.
func tell(every time.Duration, done func() uint64) {
	started := time.Now()
	out := bufio.NewWriter(os.Stdout)
	line := make([]byte, 0, 64)
	for range time.Tick(every) {
		line = strconv.AppendInt(line[:0], int64(time.Since(started)), 10)
		line = append(line, ' ')
		line = append(strconv.AppendUint(line, done(), 10), ' ')
		line = append(strconv.AppendInt(line, cpuTime(), 10), '\n')
		out.Write(line)
		if out.Flush() != nil {
			return
		}
	}
}

// cpuTime returns the nanoseconds of CPU that all threads have used, in steps of 1000.
func cpuTime() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}
