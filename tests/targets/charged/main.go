// Charged has its memory cgroup charged for one kind of memory, says so, and stands still: charged KIND BYTES [PATH].
//
// used: a file that it writes, and reads three times; once: one that it only writes; fresh: the latter in memory (tmpfs);
// read: one that is there, which it reads three times;
// anonymous: a slice; freed: one that is collected, which the heap keeps if GOGC is off; pipes: pipes that are full; child: an anonymous slice of a child; none: nothing.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
)

const (
	piece       = 1 << 20
	setPipeSize = 1031 // F_SETPIPE_SZ
)

var (
	held []byte
	open []*os.File
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func write(path string, size int) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	check(err)
	defer f.Close()
	part := make([]byte, piece)
	for at := 0; at < size; at += piece {
		_, err = f.WriteAt(part, int64(at))
		check(err)
	}
	check(f.Sync())
}

func read(path string, size int) {
	f, err := os.Open(path)
	check(err)
	defer f.Close()
	_, err = io.CopyN(io.Discard, struct{ io.Reader }{f}, int64(size))
	check(err)
}

func fill(size int) {
	part := make([]byte, piece)
	for at := 0; at < size; at += piece {
		r, w, err := os.Pipe()
		check(err)
		_, _, failed := syscall.Syscall(syscall.SYS_FCNTL, w.Fd(), setPipeSize, piece)
		if failed != 0 {
			panic(failed)
		}
		_, err = w.Write(part)
		check(err)
		open = append(open, r, w)
	}
}

func hold(size int) {
	held = make([]byte, size)
	for at := 0; at < size; at += 4096 {
		held[at] = 1
	}
}

func child(size string) {
	self, err := os.Executable()
	check(err)
	one := exec.Command(self, "anonymous", size)
	one.Stdin = os.Stdin
	out, err := one.StdoutPipe()
	check(err)
	check(one.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	check(err)
}

func main() {
	kind, size, path := os.Args[1], 0, ""
	if len(os.Args) > 2 {
		value, err := strconv.Atoi(os.Args[2])
		check(err)
		size = value
	}
	if len(os.Args) > 3 {
		path = os.Args[3]
	}
	switch kind {
	case "used":
		write(path, size)
		for i := 0; i < 3; i++ {
			read(path, size)
		}
	case "read":
		f, err := os.Open(path) // the pages of a disk that nobody has open are dropped
		check(err)
		open = append(open, f)
		for i := 0; i < 3; i++ {
			read(path, size)
		}
	case "once", "fresh":
		write(path, size)
	case "anonymous":
		hold(size)
	case "freed":
		hold(size)
		held = nil
		runtime.GC()
	case "pipes":
		fill(size)
	case "child":
		child(os.Args[2])
	}
	fmt.Printf("{\"pid\": %d}\n", os.Getpid())
	_, _ = io.Copy(io.Discard, os.Stdin)
}
