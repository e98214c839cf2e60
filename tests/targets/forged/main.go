// Forged allocates on command in ways that are hard to follow. A byte of standard input is a command; each makes 20,000
// objects and answers with a line:
//
//	t  each object has a type that is made up for it
//	f  the frame pointer leads to where nothing is mapped
//	k  it leads to the kernel's addresses
//	l  it leads to a frame whose caller is itself
//	m  it leads to 30 frames with return addresses that no other stack has
package main

import (
	"os"
	"reflect"
	"runtime/debug"
	"strconv"
	"syscall"
	"unsafe"
)

const objects = 20_000

type node struct {
	next  *node
	value [2]int
}

type frame struct{ next, address uintptr }

var (
	kept   *node
	made   reflect.Value
	loop   frame
	frames [30]frame
	number uintptr
)

func with(frame uintptr)

//go:noinline
func allocate() { kept = &node{} }

func ofNewType(number int) {
	pointer := reflect.TypeOf(&number)
	made = reflect.New(reflect.StructOf([]reflect.StructField{{Name: "F" + strconv.Itoa(number), Type: pointer}}))
}

// fresh returns frames as there were none before.
func fresh() uintptr {
	for at := range frames {
		number += 0x1001
		frames[at].address = number
		if at+1 < len(frames) {
			frames[at].next = uintptr(unsafe.Pointer(&frames[at+1]))
		}
	}
	return uintptr(unsafe.Pointer(&frames[0]))
}

func main() {
	debug.SetGCPercent(-1)
	loop = frame{uintptr(unsafe.Pointer(&loop)), 0x1234}
	command := make([]byte, 1)
	for {
		count, err := syscall.Read(0, command)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || count == 0 {
			return
		}
		for n := 0; n < objects; n++ {
			switch command[0] {
			case 't':
				ofNewType(n)
			case 'f':
				with(0x10)
			case 'k':
				with(0xffff_ffff_8100_0000)
			case 'l':
				with(uintptr(unsafe.Pointer(&loop)))
			case 'm':
				with(fresh())
			}
		}
		if _, err := os.Stdout.WriteString("done\n"); err != nil {
			return
		}
	}
}
