// Allocs allocates on command, and says what the runtime has counted. A byte of standard input is a command:
//
//	a  allocate objects of every size class, with and without pointers, and of some types
//	n  name the types, one a line: objects made by one `a`, bytes asked for, reflect's name; then an empty line
//	s  write what has been allocated so far: objects of the tiny allocator beside others, then of each size class up to
//	   the last, then large objects, then bytes of all (MemStats.TotalAlloc)
//
// Commands allocate nothing but what they say.
package main

import (
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"syscall"
)

type node struct {
	next  *node
	value [2]int
}

type leaf struct{ a, b uint64 }

type dot struct{ x, y uint8 }

type box[T any] struct {
	inside T
	other  *T
}

type wide struct {
	pointer *byte
	rest    [600]byte
}

type plain struct{ words [100]uint64 }

var (
	sizes = []int{1, 5, 8, 15, 16, 17, 24, 32, 100, 128, 500, 505, 512, 513, 520, 1000, 1024, 1025, 2048, 2049, 5000,
		8192, 10000, 16384, 18432, 19000, 20480, 24576, 28000, 32752, 32760, 32761, 32768, 32769, 65536, 100000}
	bytes   [1 << 16][]byte
	pointed [1 << 16][]*byte
	nodes   [1 << 16]*node
	leaves  [1 << 16]*leaf
	dots    [1 << 16]*dot
	boxes   [1 << 16]*box[string]
	wides   [1 << 16]*wide
	plains  [1 << 16]*plain
	stats   runtime.MemStats
	samples = []metrics.Sample{{Name: "/gc/heap/allocs-by-size:bytes"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	line    = make([]byte, 0, 1<<14)
)

//go:noinline
func allocate() {
	for i, size := range sizes {
		for n := 0; n < 3+i; n++ {
			bytes[i] = make([]byte, size)
			pointed[i] = make([]*byte, (size+7)/8)
		}
	}
	for i := 0; i < 1000; i++ {
		nodes[i] = &node{}
		leaves[i] = &leaf{}
		if i%2 == 0 {
			boxes[i] = &box[string]{}
		}
		if i%4 == 0 {
			wides[i] = &wide{}
			plains[i] = &plain{}
		}
		for n := 0; n < 3; n++ {
			dots[i] = &dot{}
		}
	}
}

func name(objects int, size uintptr, one any) {
	line = strconv.AppendInt(line, int64(objects), 10)
	line = append(line, ' ')
	line = strconv.AppendUint(line, uint64(objects)*uint64(size), 10)
	line = append(line, ' ')
	line = append(append(line, reflect.TypeOf(one).String()...), '\n')
}

func say() {
	runtime.ReadMemStats(&stats) // tells what the caches of the Ps have not told
	metrics.Read(samples)
	line = strconv.AppendUint(line[:0], samples[1].Value.Uint64(), 10)
	for _, count := range samples[0].Value.Float64Histogram().Counts {
		line = append(line, ' ')
		line = strconv.AppendUint(line, count, 10)
	}
	line = append(line, ' ')
	line = append(strconv.AppendUint(line, stats.TotalAlloc, 10), '\n')
	write()
}

func write() {
	for sent := 0; sent < len(line); {
		count, err := syscall.Write(1, line[sent:])
		if err != nil {
			os.Exit(1)
		}
		sent += count
	}
}

func main() {
	debug.SetGCPercent(-1)
	var command [1]byte
	for {
		count, err := syscall.Read(0, command[:])
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count == 0 {
			return
		}
		switch command[0] {
		case 'a':
			allocate()
			line = append(line[:0], "done\n"...)
			write()
		case 's':
			say()
		case 'n':
			line = line[:0]
			name(1000, 24, node{})
			name(1000, 16, leaf{})
			name(3000, 2, dot{})
			name(500, 24, box[string]{})
			name(250, 608, wide{})
			name(250, 800, plain{})
			line = append(line, '\n')
			write()
		}
	}
}
