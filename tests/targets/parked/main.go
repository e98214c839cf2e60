// Parked gives its heap the shape that the flags ask for, waits until the runtime has come to rest, writes its
// runtime.MemStats to fd 1 as raw bytes, and blocks in a raw system call, so that neither an allocation nor a
// scheduling decision follows the figures. Each byte on fd 0 makes it read and write them again; end of file ends it.
//
// First comes one line of JSON that describes the layout of runtime.MemStats, then records of
// "MEMSTATS", sequence number, size (both uint64 of the machine's byte order) and the struct itself.
package main

import (
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const mb = 1 << 20

type record struct {
	magic    [8]byte
	sequence uint64
	size     uint64
	stats    runtime.MemStats
}

type field struct {
	Name   string  `json:"name"`
	Offset uintptr `json:"offset"`
	Kind   string  `json:"kind"`
	Length int     `json:"length"`
}

type description struct {
	Release    string  `json:"release"`
	Size       uintptr `json:"size"`
	Fields     []field `json:"fields"`
	BySizeStep uintptr `json:"by_size_step"`
	Procs      int     `json:"gomaxprocs"`
}

var (
	out     record
	earlier runtime.MemStats
	input   [1]byte

	raw      [][]byte
	pointers [][]*byte
	large    [][]byte
	late     [][]byte
	hold     = make(chan struct{})
	parked   = make(chan struct{})
	sink     byte
	random   = uint64(88172645463325252)
)

var (
	live       = flag.Int("live", 16, "MB of small objects to keep")
	sizes      = flag.String("sizes", "8,16,24,48,112,512,1024,2048,8192,20480", "object sizes, round robin")
	garbage    = flag.Float64("garbage", 0, "fraction of the small objects to drop, at random places")
	goroutines = flag.Int("goroutines", 0, "goroutines to leave blocked")
	depth      = flag.Int("depth", 8, "frames of about 1 KB on each goroutine's stack")
	ended      = flag.Int("ended", 0, "goroutines that grow their stacks alike, then end")
	big        = flag.Int("big", 0, "large objects to make")
	bigMB      = flag.Int("bigmb", 3, "MB of each large object")
	bigDrop    = flag.Int("bigdrop", 0, "large objects of them to drop")
	collect    = flag.Bool("collect", true, "runtime.GC() after dropping")
	release    = flag.Bool("release", false, "debug.FreeOSMemory() after dropping")
	regrow     = flag.Int("regrow", 0, "MB of small objects to make, drop and collect after that")
	dirty      = flag.Int("dirty", 0, "objects of 96 bytes to make after each record, so that an mcache holds some")
	gogc       = flag.Int("gogc", -1, "debug.SetGCPercent; -1 also keeps the background scavenger off")
	cHeap      = flag.Int("cheap", 0, "MB to malloc and touch in C (cgo builds only)")
)

func next() uint64 {
	random ^= random << 13
	random ^= random >> 7
	random ^= random << 17
	return random
}

func parseSizes() []int {
	var parsed []int
	for _, word := range strings.Split(*sizes, ",") {
		size, err := strconv.Atoi(word)
		if err != nil || size < 1 {
			panic("bad -sizes")
		}
		parsed = append(parsed, size)
	}
	return parsed
}

// fill keeps `bytes` worth of small objects, alternately without and with pointers.
func fill(bytes int, each []int) {
	for i := 0; bytes > 0; i++ {
		size := each[i/2%len(each)]
		if i%2 == 0 || size < 8 {
			object := make([]byte, size)
			object[0] = byte(i)
			raw = append(raw, object)
		} else {
			object := make([]*byte, size/8)
			object[0] = &sink
			pointers = append(pointers, object)
		}
		bytes -= size
	}
}

func drop(fraction float64) {
	limit := uint64(fraction * (1 << 32))
	for i := range raw {
		if next()>>32 < limit {
			raw[i] = nil
		}
	}
	for i := range pointers {
		if next()>>32 < limit {
			pointers[i] = nil
		}
	}
}

//go:noinline
func deep(frames int, until chan struct{}) byte {
	var frame [1024]byte
	frame[frames%1024] = byte(frames)
	if frames > 0 {
		return deep(frames-1, until) + frame[(frames+1)%1024]
	}
	parked <- struct{}{}
	<-until
	return frame[0]
}

func spawn(count int, until chan struct{}) {
	for i := 0; i < count; i++ {
		go deep(*depth, until)
	}
	for i := 0; i < count; i++ {
		<-parked
	}
}

func shape() {
	each := parseSizes()
	fill(*live*mb, each)
	for i := 0; i < *big; i++ {
		object := make([]byte, *bigMB*mb+i)
		for at := 0; at < len(object); at += 4096 {
			object[at] = 1
		}
		large = append(large, object)
	}
	spawn(*goroutines, hold)
	if *ended > 0 {
		until := make(chan struct{})
		spawn(*ended, until)
		close(until)
	}
	drop(*garbage)
	for i := 0; i < *bigDrop && i < len(large); i++ {
		large[i*len(large) / *bigDrop] = nil
	}
	if *collect {
		runtime.GC()
	}
	if *release {
		debug.FreeOSMemory()
	}
	if *regrow > 0 {
		before := len(raw)
		fill(*regrow*mb, each)
		for i := before; i < len(raw); i++ {
			raw[i] = nil
		}
		runtime.GC()
	}
	late = make([][]byte, 0, 64*(*dirty)+1)
	// A rehearsal: the first flush of a span of that class into its mcentral allocates runtime memory.
	addLate()
	runtime.ReadMemStats(&out.stats)
	addLate()
}

func addLate() {
	for i := 0; i < *dirty && len(late) < cap(late); i++ {
		late = append(late, make([]byte, 96))
	}
}

// settle waits until reading the figures changes nothing any more: background sweeping is done, and the
// threads and timers that reading and sleeping need exist.
func settle() bool {
	equal := 0
	for tries := 0; tries < 300; tries++ {
		time.Sleep(20 * time.Millisecond)
		runtime.ReadMemStats(&out.stats)
		if out.stats == earlier {
			if equal++; equal == 5 {
				return true
			}
		} else {
			equal = 0
		}
		earlier = out.stats
	}
	return false
}

func describe() description {
	whole := reflect.TypeOf(out.stats)
	described := description{Release: runtime.Version(), Size: whole.Size(), Procs: runtime.GOMAXPROCS(0)}
	for i := 0; i < whole.NumField(); i++ {
		part := whole.Field(i)
		length := 0
		kind := part.Type
		if kind.Kind() == reflect.Array {
			length = kind.Len()
			kind = kind.Elem()
		}
		if part.Name == "BySize" {
			described.BySizeStep = kind.Size()
		}
		described.Fields = append(described.Fields, field{part.Name, part.Offset, kind.Kind().String(), length})
	}
	return described
}

func emit(from unsafe.Pointer, size uintptr) {
	for size > 0 {
		written, _, failure := syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(from), size)
		if failure == syscall.EINTR || failure == syscall.EAGAIN {
			continue
		}
		if failure != 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 3, 0, 0)
		}
		from = unsafe.Pointer(uintptr(from) + written)
		size -= written
	}
}

func await() {
	for {
		got, _, failure := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&input)), 1)
		if failure == syscall.EINTR || failure == syscall.EAGAIN {
			continue
		}
		if failure != 0 || got == 0 {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
		}
		return
	}
}

func main() {
	flag.Parse()
	debug.SetGCPercent(*gogc)
	described := describe()
	growC(*cHeap * mb)
	shape()
	head, err := json.Marshal(described)
	if err != nil {
		panic(err)
	}
	head = append(head, '\n')
	// The collections of the shape are over: what describing left behind is part of the figures.
	if !settle() {
		os.Stderr.WriteString("parked: the runtime does not come to rest\n")
		os.Exit(4)
	}
	emit(unsafe.Pointer(&head[0]), uintptr(len(head)))
	copy(out.magic[:], "MEMSTATS")
	out.size = uint64(unsafe.Sizeof(out.stats))
	for {
		runtime.ReadMemStats(&out.stats)
		emit(unsafe.Pointer(&out), unsafe.Sizeof(out))
		out.sequence++
		addLate()
		await()
	}
}
