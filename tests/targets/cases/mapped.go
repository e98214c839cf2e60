package main

import (
	"os"
	"syscall"
	"unsafe"
)

const (
	megabyte = 1 << 20
	shared   = syscall.MAP_SHARED
	private  = syscall.MAP_PRIVATE
	rw       = syscall.PROT_READ | syscall.PROT_WRITE
)

// Scratch is a file on a disk; who runs the program removes it.
func scratch(size int) *os.File {
	file, err := os.CreateTemp(os.Getenv("GOMEM_CASES_DIRECTORY"), "case")
	if err != nil {
		panic(err)
	}
	some := filled(megabyte)
	for at := 0; at < size; at += megabyte {
		if _, err := file.Write(some); err != nil {
			panic(err)
		}
	}
	if err := file.Sync(); err != nil {
		panic(err)
	}
	return file
}

func mapped(file *os.File, size, protection, flags int) []byte {
	descriptor := -1
	if file != nil {
		descriptor = int(file.Fd())
	}
	some, err := syscall.Mmap(descriptor, 0, size, protection, flags)
	if err != nil {
		panic(err)
	}
	return some
}

var total int

func mapFile(write bool, flags int) {
	const size = 120 * megabyte
	some := mapped(scratch(size), size, rw, flags)
	for at := 0; at < size; at += 4096 {
		if write {
			some[at] = 2
		} else {
			total += int(some[at])
		}
	}
}

func memory() {
	const size = 120 * megabyte
	name := [...]byte{'c', 'a', 's', 'e', 0}
	descriptor, _, failed := syscall.Syscall(319, uintptr(unsafe.Pointer(&name[0])), 0, 0)
	if failed != 0 {
		panic(failed)
	}
	file := os.NewFile(descriptor, "case")
	if err := file.Truncate(size); err != nil {
		panic(err)
	}
	some := mapped(file, size, rw, shared)
	for at := 0; at < size; at += 4096 {
		some[at] = 2
	}
}

// Reserve takes address space as a host of WebAssembly does: 8 GB for each instance, of which little is ever used.
func reserve() {
	for i := 0; i < 8; i++ {
		some := mapped(nil, 8<<30, syscall.PROT_NONE, private|syscall.MAP_ANON|syscall.MAP_NORESERVE)
		if err := syscall.Mprotect(some[:megabyte], rw); err != nil {
			panic(err)
		}
		some[0] = 1
	}
}

// Fragments has so many mappings that hardly any more are allowed.
func fragments() {
	const page, count = 4096, 62_000
	some := mapped(nil, count*page, syscall.PROT_READ, private|syscall.MAP_ANON)
	for at := 0; at < count*page; at += 2 * page {
		if err := syscall.Mprotect(some[at:at+page], rw); err != nil {
			panic(err)
		}
	}
}

// Refused asks for more address space than a limit allows, again and again.
func refused() {
	limit := syscall.Rlimit{Cur: 4 << 30, Max: 4 << 30}
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &limit); err != nil {
		panic(err)
	}
	every(50e6, func() {
		if _, err := syscall.Mmap(-1, 0, 16<<30, syscall.PROT_NONE, private|syscall.MAP_ANON); err == nil {
			panic("the limit is not kept")
		}
	})
}

var writtenFile *os.File

// PageCache has written a file, and reads it again: the kernel keeps it in RAM.
func pageCache() {
	const size = 150 * megabyte
	writtenFile = scratch(size)
	some := make([]byte, megabyte)
	for round := 0; round < 3; round++ {
		for at := int64(0); at < size; at += megabyte {
			if _, err := writtenFile.ReadAt(some, at); err != nil {
				panic(err)
			}
		}
	}
}
