// Faults touches memory page by page. By itself it takes and gives back a block again and again, and prints a line of
// nanoseconds of CPU time per page for every round. With -ask it does what each line on standard input says, and
// answers with its count of minor and major faults so far:
//
//	anon N    touch N fresh pages of anonymous memory
//	read N    read N fresh pages of anonymous memory
//	file N    read N pages of a mapped file (the program itself), from its beginning
//	shmem N   touch N fresh pages of shared memory
//	kernel N  let the kernel write to N fresh pages, by read(2)
//	free      unmap all that
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

const (
	page       = 4096
	noHugePage = 15 // MADV_NOHUGEPAGE
)

var (
	ask  = flag.Bool("ask", false, "do what standard input says")
	mb   = flag.Int("mb", 32, "size of the block")
	held [][]byte
	sink byte
)

func usage(who int) syscall.Rusage {
	var usage syscall.Rusage
	if err := syscall.Getrusage(who, &usage); err != nil {
		panic(err)
	}
	return usage
}

func mapped(fd, pages, protection, flags int) []byte {
	block, err := syscall.Mmap(fd, 0, pages*page, protection, flags)
	if err != nil {
		panic(err)
	}
	syscall.Madvise(block, noHugePage)
	return block
}

func anonymous(pages int) []byte {
	return mapped(-1, pages, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
}

func write(block []byte) {
	for at := 0; at < len(block); at += page {
		block[at] = 1
	}
}

func read(block []byte) {
	for at := 0; at < len(block); at += page {
		sink += block[at]
	}
}

func zeros(block []byte) {
	file, err := os.Open("/dev/zero")
	if err != nil {
		panic(err)
	}
	for at := 0; at < len(block); at += page {
		if n, err := file.Read(block[at : at+page]); n != page {
			panic(err)
		}
	}
	file.Close()
}

func self(pages int) []byte {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	defer file.Close()
	return mapped(int(file.Fd()), pages, syscall.PROT_READ, syscall.MAP_PRIVATE)
}

func obey(word string, pages int) {
	var block []byte
	switch word {
	case "anon":
		block = anonymous(pages)
		write(block)
	case "read":
		block = anonymous(pages)
		read(block)
	case "file":
		block = self(pages)
		read(block)
	case "shmem":
		block = mapped(-1, pages, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_SHARED)
		write(block)
	case "kernel":
		block = anonymous(pages)
		zeros(block)
	case "free":
		for _, one := range held {
			syscall.Munmap(one)
		}
		held = nil
		return
	}
	held = append(held, block)
}

func main() {
	flag.Parse()
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	if *ask {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			var word string
			var pages int
			fmt.Sscan(in.Text(), &word, &pages)
			obey(word, pages)
			used := usage(syscall.RUSAGE_SELF)
			fmt.Println(used.Minflt, used.Majflt)
		}
		return
	}
	block := anonymous(*mb << 20 / page)
	for {
		begin := usage(1) // RUSAGE_THREAD
		write(block)
		end := usage(1)
		spent := end.Utime.Nano() + end.Stime.Nano() - begin.Utime.Nano() - begin.Stime.Nano()
		fmt.Printf("%.1f\n", float64(spent)/float64(len(block)/page))
		if err := syscall.Madvise(block, syscall.MADV_DONTNEED); err != nil {
			panic(err)
		}
	}
}
