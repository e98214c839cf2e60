// Gosym prints what Go's own debug/gosym reads from a raw pclntab: entry, end and name of each function.
package main

import (
	"bufio"
	"debug/gosym"
	"fmt"
	"os"
	"strconv"
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
	for _, function := range symbols.Funcs {
		fmt.Fprintf(out, "%d %d %s\n", function.Entry, function.End, function.Sym.Name)
	}
}
