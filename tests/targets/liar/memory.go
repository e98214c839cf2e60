package main

import "unsafe"

func ptr(bytes []byte) unsafe.Pointer { return unsafe.Pointer(&bytes[0]) }

// touch writes a byte of each OS page, so that it is in RAM.
func touch(base, size uintptr) {
	for offset := uintptr(0); offset < size; offset += 4096 {
		*(*byte)(unsafe.Add(unsafe.Pointer(nil), base+offset)) = 1
	}
}

// look reads a byte of every second page of `page` bytes.
func look(base, size, page uintptr) (sum byte) {
	for offset := uintptr(0); offset < size; offset += 2 * page {
		sum += *(*byte)(unsafe.Add(unsafe.Pointer(nil), base+offset))
	}
	return sum
}
