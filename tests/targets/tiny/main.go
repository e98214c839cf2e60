// Tiny says hello and ends; with -hold it stays for that long.
package main

import (
	"flag"
	"os"
	"time"
)

func main() {
	hold := flag.Duration("hold", 0, "how long to stay")
	flag.Parse()
	os.Stdout.WriteString("hello\n")
	time.Sleep(*hold)
}
