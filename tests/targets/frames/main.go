// Frames tells what the runtime says of addresses of its own code: for each address on standard input, in hexadecimal,
// one line of JSON with the frames that runtime.CallersFrames makes of it as a return address. Its first line has the
// address of main.main, and whether the runtime tells of all functions that are inlined at an address, or only of the
// innermost.
//
// With a file as argument it first allocates by calls of every shape and writes its heap profile into the file.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strconv"
)

type frame struct {
	Function string
	File     string
	Line     int
}

type greeting struct {
	Main uint64
	All  bool
}

func main() {
	out := bufio.NewWriter(os.Stdout)
	hello := greeting{Main: uint64(reflect.ValueOf(main).Pointer()), All: tellsAll()}
	if len(os.Args) > 1 {
		profile(os.Args[1])
	}
	write(out, hello)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		pc, err := strconv.ParseUint(in.Text(), 16, 64)
		if err != nil {
			panic(err)
		}
		write(out, frames(uintptr(pc)))
	}
}

func write(out *bufio.Writer, what interface{}) {
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(out, "%s\n", line)
	if err := out.Flush(); err != nil {
		panic(err)
	}
}

// frames returns what is at a return address. A second one, in no function, makes the runtime tell of the outer
// functions, too, since Go 1.23.
func frames(pc uintptr) []frame {
	found := []frame{}
	next := runtime.CallersFrames([]uintptr{pc, 1})
	for more := true; more; {
		var one runtime.Frame
		one, more = next.Next()
		if one.PC != 0 {
			found = append(found, frame{one.Function, one.File, one.Line})
		}
	}
	return found
}

func tellsAll() bool {
	pcs := make([]uintptr, 1)
	inner(pcs)
	return len(frames(pcs[0])) > 1
}

func inner(pcs []uintptr) { runtime.Callers(1, pcs) }
