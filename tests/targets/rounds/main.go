// Rounds makes spans come and go when it is told to. For each byte on fd 0 it makes objects of many size classes with
// and without pointers, large ones, and goroutines with stacks of several sizes; it drops what it made two rounds
// before, collects, waits until the runtime has come to rest, and writes a line with the figures of its own
// runtime.MemStats to fd 1. Then it blocks in a raw system call, so that no allocation follows the figures.
//
// The line has HeapInuse, StackInuse, HeapReleased and NumGC. A first line comes before any round; at end of file it
// ends. Only one goroutine at a time allocates.
package main

import (
	"flag"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

const mb = 1 << 20

type made struct {
	raw      [][]byte
	pointers [][]*byte
}

var (
	megabytes  = flag.Int("mb", 8, "MB of small objects in each round")
	goroutines = flag.Int("goroutines", 40, "goroutines in each round")
	rounds     = flag.Int("rounds", 0, "rounds to make without a byte and without a line; negative: for ever")
	gogc       = flag.Int("gogc", -1, "debug.SetGCPercent")

	kept  [2]made
	now   runtime.MemStats
	past  runtime.MemStats
	input [1]byte
	line  = make([]byte, 0, 256)
	sink  byte
	sizes = []int{8, 16, 24, 48, 80, 112, 256, 640, 1024, 2048, 4096, 8192, 20480, 32768, 40000, 300000}
)

//go:noinline
func deep(frames int) byte {
	var frame [1024]byte
	frame[frames%1024] = byte(frames)
	if frames > 0 {
		return deep(frames-1) + frame[(frames+1)%1024]
	}
	return frame[0]
}

func stacks(count int) {
	ended := make(chan byte)
	for i := 0; i < count; i++ {
		go func(frames int) { ended <- deep(frames) }(1 << (i % 7))
	}
	for i := 0; i < count; i++ {
		sink += <-ended
	}
}

func round(number int) {
	var fresh made
	for i, bytes := 0, *megabytes*mb; bytes > 0; i++ {
		size := sizes[i/2%len(sizes)]
		if i%2 == 0 {
			fresh.raw = append(fresh.raw, make([]byte, size))
		} else {
			fresh.pointers = append(fresh.pointers, make([]*byte, size/8))
		}
		bytes -= size
	}
	stacks(*goroutines)
	kept[number%2] = fresh
	runtime.GC()
	runtime.GC()
}

func rest() {
	for equal, tries := 0, 0; equal < 3 && tries < 300; tries++ {
		time.Sleep(10 * time.Millisecond)
		runtime.ReadMemStats(&now)
		if now == past {
			equal++
		} else {
			equal = 0
		}
		past = now
	}
}

func say() {
	line = line[:0]
	for _, figure := range []uint64{now.HeapInuse, now.StackInuse, now.HeapReleased, uint64(now.NumGC)} {
		line = strconv.AppendUint(append(line, ' '), figure, 10)
	}
	line = append(line, '\n')
	syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&line[0])), uintptr(len(line)))
}

func await() {
	for {
		got, _, failure := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&input)), 1)
		if failure == syscall.EINTR || failure == syscall.EAGAIN {
			continue
		}
		if failure != 0 || got == 0 {
			os.Exit(0)
		}
		return
	}
}

func main() {
	flag.Parse()
	debug.SetGCPercent(*gogc)
	for number := 0; *rounds == 0 || number != *rounds; number++ {
		if *rounds == 0 {
			rest()
			say()
			await()
		}
		round(number)
	}
}
