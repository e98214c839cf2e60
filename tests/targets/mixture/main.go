// Mixture makes objects of twelve types as fast as it can, on every P, in phases: in each, some types come more often.
// With -steady it stays in the second one, in which no two types take as many bytes.
// Ten times a second it writes a line as allocloop does (nanoseconds since its start, objects, nanoseconds of CPU time).
// For each line of standard input it writes to standard error how many objects of each type there have been: a line
// "count size name" for each, then an empty one.
package main

import (
	"bufio"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

type (
	id    struct{ a, b uint64 }
	point struct{ x, y, z float64 }
	link  struct{ next, prev *link }
	entry struct {
		key   string
		value *int
	}
	row    struct{ cells [12]int }
	record struct {
		name string
		tags [8]string
	}
	page struct {
		head *page
		body [1000]byte
	}
	cell struct{ value int32 }
	list struct {
		first, last *link
		length      int
	}
	frame struct {
		up    *frame
		words [30]int
	}
	block struct{ words [256]int }
	tree  struct {
		left, right *tree
		key, value  int
	}
)

const (
	types = 12
	batch = 512
)

// counter has cache lines of its own.
type counter struct {
	made [types]uint64
	_    [64]byte
}

// Of each phase: how many objects of each type there are in a round of 512, and for how many milliseconds it lasts.
var phases = []struct {
	share  [types]int
	millis int
}{
	{[types]int{200, 100, 60, 40, 30, 20, 10, 20, 10, 10, 4, 8}, 70},
	{[types]int{20, 30, 10, 200, 10, 100, 2, 60, 60, 10, 2, 8}, 110},
	{[types]int{100, 10, 200, 10, 60, 4, 20, 20, 4, 40, 14, 30}, 45},
}

var sinks [64]any

func make1(kind int) any {
	switch kind {
	case 0:
		return &id{}
	case 1:
		return &point{}
	case 2:
		return &link{}
	case 3:
		return &entry{}
	case 4:
		return &row{}
	case 5:
		return &record{}
	case 6:
		return &page{}
	case 7:
		return &cell{}
	case 8:
		return &list{}
	case 9:
		return &frame{}
	case 10:
		return &block{}
	}
	return &tree{}
}

func work(number int, done *counter, phase *uint32) {
	for {
		for kind, count := range phases[atomic.LoadUint32(phase)].share {
			for i := 0; i < count; i++ {
				sinks[number] = make1(kind)
			}
			atomic.AddUint64(&done.made[kind], uint64(count))
		}
	}
}

func cpuTime() int64 {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return usage.Utime.Nano() + usage.Stime.Nano()
}

func answer(counters []counter) {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var said []byte
		for kind := 0; kind < types; kind++ {
			var made uint64
			for i := range counters {
				made += atomic.LoadUint64(&counters[i].made[kind])
			}
			of := reflect.TypeOf(make1(kind)).Elem()
			said = append(strconv.AppendUint(said, made, 10), ' ')
			said = append(strconv.AppendUint(said, uint64(of.Size()), 10), ' ')
			said = append(append(said, of.String()...), '\n')
		}
		os.Stderr.Write(append(said, '\n'))
	}
}

func main() {
	weight := make([]byte, 64<<20)
	counters := make([]counter, runtime.GOMAXPROCS(0))
	phase, steady := uint32(1), len(os.Args) > 1 && os.Args[1] == "-steady"
	started := time.Now()
	for i := range counters {
		go work(i, &counters[i], &phase)
	}
	go answer(counters)
	go func() {
		for at := 0; !steady; at = (at + 1) % len(phases) {
			atomic.StoreUint32(&phase, uint32(at))
			time.Sleep(time.Duration(phases[at].millis) * time.Millisecond)
		}
	}()
	line := make([]byte, 0, 64)
	for range time.Tick(100 * time.Millisecond) {
		var total uint64
		for i := range counters {
			for kind := range counters[i].made {
				total += atomic.LoadUint64(&counters[i].made[kind])
			}
		}
		line = strconv.AppendInt(line[:0], int64(time.Since(started)), 10)
		line = append(strconv.AppendUint(append(line, ' '), total, 10), ' ')
		line = append(strconv.AppendInt(line, cpuTime(), 10), '\n')
		if _, err := os.Stdout.Write(line); err != nil {
			break
		}
	}
	runtime.KeepAlive(weight)
}
