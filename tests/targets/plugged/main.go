// Plugged is a Go plugin, for tests/targets/plugins.
package main

const size = 128 << 20

var kept []byte

// Take takes memory from the heap, and returns how many bytes.
func Take() int {
	kept = make([]byte, size)
	return len(kept)
}

func main() {}
