// Extension is a plugin (-buildmode=plugin) with data of its own, which allocates when it is told to work.
package main

var (
	zeroed [1 << 20]byte
	filled = [1 << 16]byte{1}
	kept   [][]byte
)

// Work allocates so many bytes and keeps half of them.
func Work(bytes int) {
	for done := 0; done < bytes; done += 64 << 10 {
		block := make([]byte, 64<<10)
		copy(block, filled[:])
		zeroed[done%len(zeroed)] = block[0]
		if done>>16&1 == 0 {
			kept = append(kept, block)
		}
	}
}

func main() {}
