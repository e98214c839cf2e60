// Plugins loads the Go plugin that each line on its standard input names, lets it take memory, and tells how much.
package main

import (
	"bufio"
	"fmt"
	"os"
	"plugin"
)

func main() {
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		loaded, err := plugin.Open(in.Text())
		if err != nil {
			panic(err)
		}
		take, err := loaded.Lookup("Take")
		if err != nil {
			panic(err)
		}
		fmt.Println(take.(func() int)())
	}
}
