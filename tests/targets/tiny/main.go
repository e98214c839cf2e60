// Tiny says hello and ends; with -hold it stays for that long; with -exec it becomes another program then.
package main

import (
	"flag"
	"os"
	"syscall"
	"time"
)

func main() {
	hold := flag.Duration("hold", 0, "how long to stay")
	instead := flag.String("exec", "", "program to execute in the end, with the other arguments")
	flag.Parse()
	os.Stdout.WriteString("hello\n")
	time.Sleep(*hold)
	if *instead != "" {
		panic(syscall.Exec(*instead, append([]string{*instead}, flag.Args()...), os.Environ()))
	}
}
