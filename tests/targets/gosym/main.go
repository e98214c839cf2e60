// Gosym prints what Go's own debug/gosym reads from a raw pclntab: entry, end and name of each function; or, with a
// file of addresses, one a line in hexadecimal, the function, file and line of each.
package main

import (
	"bufio"
	"debug/gosym"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	table, err := os.ReadFile(os.Args[1])
	if err != nil {
		panic(err)
	}
	text, err := strconv.ParseUint(os.Args[2], 0, 64)
	if err != nil {
		panic(err)
	}
	symbols, err := gosym.NewTable(nil, gosym.NewLineTable(table, text))
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	if len(os.Args) > 3 {
		lines(out, symbols, os.Args[3])
		return
	}
	for _, function := range symbols.Funcs {
		fmt.Fprintf(out, "%d %d %s\n", function.Entry, function.End, function.Sym.Name)
	}
}

func lines(out *bufio.Writer, symbols *gosym.Table, path string) {
	addresses, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	for _, text := range strings.Fields(string(addresses)) {
		address, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			panic(err)
		}
		file, line, function := symbols.PCToLine(address)
		name := ""
		if function != nil {
			name = function.Name
		}
		fmt.Fprintf(out, "%s\t%s\t%d\n", name, file, line)
	}
}
