// Liar changes its own runtime's words on command, and maps what it is told to: what a hostile program could do.
//
// It obeys lines on standard input, and answers each with one line of decimal numbers:
//
//	word ADDRESS VALUE     write a word anywhere into itself
//	words ADDRESS VALUE... write words one after the other: the address
//	file PATH BYTES        map a file privately, read-only: its address
//	anonymous BYTES        map anonymous memory that is never touched: its address
//	block ADDRESS          read there through /proc, and call mmap a moment later, both in threads: its address
//	spans COUNT            allocate so many objects that are never touched, each a span of its own: their number
//	mappings COUNT         make so many mappings of a page each, of which every second has other rights: its address
//	holes COUNT            read every second page, so many, of memory that is never written: its address
//	memfd TOTAL UNIT       map one file of UNIT bytes in RAM side by side over TOTAL bytes, and touch it all: its address
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

const (
	memfdCreate = 319
	noHugePages = 15
	page        = 4096
)

var (
	keep [][]byte
	sink byte
)

func mmap(address, size, protection, flags, file uintptr) uintptr {
	at, _, errno := syscall.Syscall6(syscall.SYS_MMAP, address, size, protection, flags, file, 0)
	if errno != 0 {
		fmt.Fprintln(os.Stderr, "mmap:", errno)
		os.Exit(1)
	}
	return at
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func memfd(total, unit uintptr) uintptr {
	name := []byte("lie\x00")
	file, _, errno := syscall.Syscall(memfdCreate, uintptr(ptr(name)), 0, 0)
	if errno != 0 {
		check(errno)
	}
	check(syscall.Ftruncate(int(file), int64(unit)))
	base := mmap(0, total, syscall.PROT_NONE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS|syscall.MAP_NORESERVE, ^uintptr(0))
	for offset := uintptr(0); offset < total; offset += unit {
		mmap(base+offset, unit, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED|syscall.MAP_FIXED, file)
	}
	touch(base, total)
	return base
}

func anonymous(size uintptr) uintptr {
	flags := uintptr(syscall.MAP_PRIVATE | syscall.MAP_ANONYMOUS | syscall.MAP_NORESERVE)
	return mmap(0, size, syscall.PROT_READ|syscall.PROT_WRITE, flags, ^uintptr(0))
}

func mappings(count uintptr) uintptr {
	base := anonymous(count * page)
	for at := base; at < base+count*page; at += 2 * page {
		_, _, errno := syscall.Syscall(syscall.SYS_MPROTECT, at, page, syscall.PROT_READ)
		if errno != 0 {
			check(errno)
		}
	}
	return base
}

func holes(count uintptr) uintptr {
	size := count * 2 * page
	base := anonymous(size)
	_, _, errno := syscall.Syscall(syscall.SYS_MADVISE, base, size, noHugePages)
	if errno != 0 {
		check(errno)
	}
	sink = look(base, size, page)
	return base
}

func main() {
	debug.SetGCPercent(-1)
	for range [200]struct{}{} {
		keep = append(keep, make([]byte, 20000))
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	check(err)
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		number := func(at int) (value uint64) {
			_, err := fmt.Sscan(words[at], &value)
			check(err)
			return value
		}
		switch words[0] {
		case "word":
			_, err := memory.WriteAt(binary.LittleEndian.AppendUint64(nil, number(2)), int64(number(1)))
			check(err)
			fmt.Println(number(1))
		case "words":
			var raw []byte
			for at := 2; at < len(words); at++ {
				raw = binary.LittleEndian.AppendUint64(raw, number(at))
			}
			where, answer := int64(number(1)), []byte(words[1]+"\n")
			_, err := memory.WriteAt(raw, where)
			check(err)
			// No object may be made from here on: it could need a span, and what was written may be the list of spans.
			_, err = os.Stdout.Write(answer)
			check(err)
		case "file":
			file, err := os.Open(words[1])
			check(err)
			fmt.Println(mmap(0, uintptr(number(2)), syscall.PROT_READ, syscall.MAP_PRIVATE, file.Fd()))
		case "anonymous":
			fmt.Println(anonymous(uintptr(number(1))))
		case "spans":
			for range make([]struct{}, number(1)) {
				keep = append(keep, make([]byte, 33000))
			}
			fmt.Println(number(1))
		case "mappings":
			fmt.Println(mappings(uintptr(number(1))))
		case "holes":
			fmt.Println(holes(uintptr(number(1))))
		case "block":
			address := int64(number(1))
			fmt.Println(address) // before: what waits for the lock may be whoever answers
			go memory.ReadAt(make([]byte, 8), address)
			go func() {
				time.Sleep(300 * time.Millisecond)
				flags := uintptr(syscall.MAP_PRIVATE | syscall.MAP_ANONYMOUS)
				syscall.RawSyscall6(syscall.SYS_MMAP, 0, 4096, syscall.PROT_READ, flags, ^uintptr(0), 0)
			}()
		case "memfd":
			fmt.Println(memfd(uintptr(number(1)), uintptr(number(2))))
		}
	}
}
