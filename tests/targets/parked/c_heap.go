//go:build cgo

package main

/*
#include <stdlib.h>

// volatile: gcc drops what nobody reads.
static volatile char *volatile kept;

static int grow(size_t bytes) {
	kept = malloc(bytes);
	if (kept)
		for (size_t at = 0; at < bytes; at += 4096) kept[at] = 1;
	return kept != 0;
}
*/
import "C"

func growC(bytes int) {
	if bytes > 0 && C.grow(C.size_t(bytes)) == 0 {
		panic("malloc failed")
	}
}
