// Holds keeps large objects. For each line on its standard input it does what the line says, and then writes one line of
// JSON: what runtime.MemStats says, and where the objects are that it keeps.
//
//	bytes 3 4096      keeps three slices of bytes of 4096 KB, each page of them written
//	barely 1 4096     the same, but one byte in each 2 MB of them written
//	hugely 1 4096     one slice like that, with huge pages if the kernel has any
//	wholly 1 4096     one slice of which each page is written, with huge pages
//	pointers 1 4096   keeps a slice of pointers of 4096 KB
//	nodes 1 4096      keeps a slice of structs with pointers
//	one 1 0           keeps one struct of 64 KB with pointers
//	drop 10 2         lets go of every second one of the first ten
//	gc 1 0            runtime.GC()
//	free 1 0          debug.FreeOSMemory()
//	timers 100 0      sets timers that fire in an hour
//	stop 1 0          stops all of them
//	finalizers 100 0  keeps objects with a finalizer
//	cleanups 100 0    keeps objects with a cleanup and a weak pointer (Go 1.24 and later)
//	forget 1 0        lets go of these, and collects garbage so often
//	stuck 1 0         lets a finalizer run that blocks
//	open 1 0          lets it go on
//	stacks 10 0       allocates from 1024 different stacks
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"runtime/debug"
	"syscall"
	"unsafe"
)

type node struct {
	next *node
	rest [24]byte
}

type whole struct {
	nodes [1 << 11]node
}

type object struct {
	Address uintptr `json:"address"`
	Bytes   uintptr `json:"bytes"`
	Type    string  `json:"type"`
}

type answer struct {
	MemStats runtime.MemStats
	Objects  []object `json:"objects"`
}

var kept []interface{}

const step = 4096

func touched(count int, every int, advice int) []byte {
	made := make([]byte, count)
	if err := syscall.Madvise(made, advice); err != nil {
		panic(err)
	}
	for at := 0; at < count; at += every {
		made[at] = 1
	}
	return made
}

func keep(what string, bytes int) {
	switch what {
	case "bytes":
		kept = append(kept, touched(bytes, step, syscall.MADV_NOHUGEPAGE))
	case "barely":
		kept = append(kept, touched(bytes, 2<<20, syscall.MADV_NOHUGEPAGE))
	case "hugely":
		kept = append(kept, touched(bytes, 2<<20, syscall.MADV_HUGEPAGE))
	case "wholly":
		kept = append(kept, touched(bytes, step, syscall.MADV_HUGEPAGE))
	case "pointers":
		made := make([]*node, bytes/int(unsafe.Sizeof((*node)(nil))))
		kept = append(kept, made)
	case "nodes":
		made := make([]node, bytes/int(unsafe.Sizeof(node{})))
		kept = append(kept, made)
	case "one":
		kept = append(kept, new(whole))
	default:
		panic("unknown: " + what)
	}
}

// describe tells where an object is, by reflect: its address and the type of what it is made of.
func describe(one interface{}) object {
	value := reflect.ValueOf(one)
	if value.Kind() == reflect.Ptr {
		return object{value.Pointer(), value.Type().Elem().Size(), value.Type().Elem().String()}
	}
	element := value.Type().Elem()
	return object{value.Pointer(), uintptr(value.Cap()) * element.Size(), element.String()}
}

func do(what string, first, second int) {
	if doWaiting(what, first) {
		return
	}
	switch what {
	case "gc":
		runtime.GC()
	case "free":
		debug.FreeOSMemory()
	case "drop":
		var left []interface{}
		for at, one := range kept {
			if at >= first || at%second != 0 {
				left = append(left, one)
			}
		}
		kept = left
	default:
		for ; first > 0; first-- {
			keep(what, second<<10)
		}
	}
}

func main() {
	runtime.MemProfileRate = 1    // a record of each object
	runtime.MemProfile(nil, true) // without a call of it the linker turns the heap profile off
	output := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var what string
		var first, second int
		if _, err := fmt.Sscan(lines.Text(), &what, &first, &second); err != nil {
			panic(err)
		}
		do(what, first, second)
		var told answer
		told.Objects = []object{}
		for _, one := range kept {
			told.Objects = append(told.Objects, describe(one))
		}
		runtime.ReadMemStats(&told.MemStats)
		if err := output.Encode(told); err != nil {
			panic(err)
		}
	}
}
