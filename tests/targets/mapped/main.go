// Mapped holds memory of one kind, says so, and stands still: mapped KIND BYTES [PATH].
//
// shm, memfd, anonshared: shared memory, written; private: pages of a file that it has written to, mapped MAP_PRIVATE;
// dirty, clean: pages of a file on a disk, mapped MAP_SHARED, written or only read; lockedfile: the latter, locked;
// noaccess: PROT_NONE; locked: a heap that is freed and released after mlockall; none: nothing.
// Then each line "MAP BYTES" (PROT_NONE), "WRITABLE BYTES" or "TOUCHED BYTES" makes it map so much more, "HEAP BYTES" take
// so much of Go's heap, "DROP 0" unmap what it has mapped last; it says whether it could.
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"
)

const page = 4096

var heap [][]byte

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func number(word string) int {
	value, err := strconv.Atoi(word)
	check(err)
	return value
}

func file(path string, size int) int {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	check(f.Truncate(int64(size)))
	fd, err := syscall.Dup(int(f.Fd()))
	check(err)
	return fd
}

func memfd(size int) int {
	const memfdCreate = 319
	name, err := syscall.BytePtrFromString("mapped")
	check(err)
	fd, _, failed := syscall.Syscall(memfdCreate, uintptr(unsafe.Pointer(name)), 0, 0)
	if failed != 0 {
		panic(failed)
	}
	check(syscall.Ftruncate(int(fd), int64(size)))
	return int(fd)
}

func written(memory []byte) {
	for at := 0; at < len(memory); at += page {
		memory[at] = 1
	}
}

func read(memory []byte) (sum byte) {
	for at := 0; at < len(memory); at += page {
		sum += memory[at]
	}
	return sum
}

func hold(kind string, size int, path string) {
	fd, flags, protection := -1, syscall.MAP_SHARED, syscall.PROT_READ|syscall.PROT_WRITE
	switch kind {
	case "none":
		return
	case "locked":
		check(syscall.Mlockall(3)) // MCL_CURRENT | MCL_FUTURE
		for done := 0; done < size; done += 1 << 20 {
			heap = append(heap, make([]byte, 1<<20))
		}
		heap = nil
		debug.FreeOSMemory()
		return
	case "anonshared":
		flags |= syscall.MAP_ANON
	case "memfd":
		fd = memfd(size)
	case "noaccess":
		flags, protection = syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE, syscall.PROT_NONE
	case "private":
		fd, flags = file(path, size), syscall.MAP_PRIVATE
	default:
		fd = file(path, size)
	}
	memory, err := syscall.Mmap(fd, 0, size, protection, flags)
	check(err)
	switch kind {
	case "noaccess":
	case "clean", "lockedfile":
		written(memory)
		_, _, failed := syscall.Syscall(syscall.SYS_MSYNC, uintptr(unsafe.Pointer(&memory[0])), uintptr(size), 4)
		if failed != 0 {
			panic(failed)
		}
		read(memory)
		if kind == "lockedfile" {
			check(syscall.Mlock(memory))
		}
	default:
		written(memory)
	}
}

const anonymous, writable = syscall.MAP_PRIVATE | syscall.MAP_ANON, syscall.PROT_READ | syscall.PROT_WRITE

var last []byte

//go:noinline
func reserve(size int) (err error) {
	last, err = syscall.Mmap(-1, 0, size, syscall.PROT_NONE, anonymous)
	return err
}

//go:noinline
func cache(size int) (err error) {
	last, err = syscall.Mmap(-1, 0, size, writable, anonymous)
	if err == nil {
		written(last)
	}
	return err
}

//go:noinline
func more(word string, size int) (err error) {
	switch word {
	case "MAP":
		return reserve(size)
	case "WRITABLE":
		last, err = syscall.Mmap(-1, 0, size, writable, anonymous)
		return err
	case "TOUCHED":
		return cache(size)
	case "HEAP":
		heap = append(heap, make([]byte, size))
		written(heap[len(heap)-1])
		return nil
	}
	return syscall.Munmap(last)
}

func main() {
	path := ""
	if len(os.Args) > 3 {
		path = os.Args[3]
	}
	hold(os.Args[1], number(os.Args[2]), path)
	fmt.Println("{}")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var word string
		var size int
		if _, err := fmt.Sscan(lines.Text(), &word, &size); err != nil {
			panic(err)
		}
		fmt.Println(more(word, size) == nil)
	}
}
