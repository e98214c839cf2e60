//go:build !cgo

package main

func growC(bytes int) {
	if bytes > 0 {
		panic("-cheap needs a cgo build")
	}
}
