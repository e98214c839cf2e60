// Mappings waits for a byte on standard input, makes a fixed sequence of memory system calls, writes each of them as a
// line of JSON (name, arguments and result as the kernel saw them; -errno for a failure), and waits for end of file.
package main

import (
	"encoding/json"
	"flag"
	"os"
	"strconv"
	"strings"
	"syscall"
)

type call struct {
	Name   string    `json:"name"`
	Args   [6]uint64 `json:"args"`
	Result int64     `json:"result"`
}

const (
	sysProcessMadvise = 440
	madvFree          = 8
	remapMayMove      = 1
)

var (
	sizes = flag.String("sizes", "4096,65536,1048576,67108864", "bytes of the mappings")
	calls []call
)

func do(name string, number uintptr, args ...uint64) uint64 {
	var a [6]uint64
	copy(a[:], args)
	result, _, failure := syscall.RawSyscall6(
		number, uintptr(a[0]), uintptr(a[1]), uintptr(a[2]), uintptr(a[3]), uintptr(a[4]), uintptr(a[5]))
	told := int64(result)
	if failure != 0 {
		told = -int64(failure)
	}
	calls = append(calls, call{name, a, told})
	return uint64(result)
}

func sequence(size uint64) {
	const private = syscall.MAP_PRIVATE | syscall.MAP_ANON
	none := ^uint64(0)
	at := do("mmap", syscall.SYS_MMAP, 0, size, syscall.PROT_NONE, private, none, 0)
	do("mprotect", syscall.SYS_MPROTECT, at, size, syscall.PROT_READ|syscall.PROT_WRITE)
	do("madvise", syscall.SYS_MADVISE, at, size, syscall.MADV_WILLNEED)
	do("madvise", syscall.SYS_MADVISE, at, size, madvFree)
	do("madvise", syscall.SYS_MADVISE, at, size, syscall.MADV_DONTNEED)
	at = do("mremap", syscall.SYS_MREMAP, at, size, 2*size, remapMayMove)
	do("mmap", syscall.SYS_MMAP, at, size, syscall.PROT_READ, private|syscall.MAP_FIXED, none, 0)
	do("munmap", syscall.SYS_MUNMAP, at, 2*size)
}

// failing makes calls that the kernel refuses.
func failing() {
	do("mmap", syscall.SYS_MMAP, 0, 0, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANON, ^uint64(0), 0)
	do("munmap", syscall.SYS_MUNMAP, 1, 4096)
	do("madvise", syscall.SYS_MADVISE, 0, 4096, 4711)
	do("mprotect", syscall.SYS_MPROTECT, 1, 4096, syscall.PROT_READ)
	do("mremap", syscall.SYS_MREMAP, 1, 4096, 8192, remapMayMove)
	do("process_madvise", sysProcessMadvise, ^uint64(0), 0, 0, syscall.MADV_WILLNEED, 0)
}

func main() {
	flag.Parse()
	calls = make([]call, 0, 256)
	var input [1]byte
	if _, err := os.Stdin.Read(input[:]); err != nil {
		os.Exit(2)
	}
	for _, word := range strings.Split(*sizes, ",") {
		size, err := strconv.ParseUint(word, 10, 64)
		if err != nil {
			panic(err)
		}
		sequence(size)
	}
	top := do("brk", syscall.SYS_BRK, 0)
	top = (top + 4095) &^ 4095
	do("brk", syscall.SYS_BRK, top+65536)
	do("brk", syscall.SYS_BRK, top)
	failing()
	out := json.NewEncoder(os.Stdout)
	for _, one := range calls {
		if err := out.Encode(one); err != nil {
			os.Exit(1)
		}
	}
	os.Stdout.WriteString("\n")
	for {
		if got, err := os.Stdin.Read(input[:]); got == 0 || err != nil {
			return
		}
	}
}
