//go:build cgo

package main

/*
#include <stdlib.h>
#include <string.h>

static char *kept;

static int grow(size_t bytes) {
	kept = malloc(bytes);
	if (kept) memset(kept, 1, bytes);
	return kept != 0;
}
*/
import "C"

func growC(bytes int) {
	if bytes > 0 && C.grow(C.size_t(bytes)) == 0 {
		panic("malloc failed")
	}
}
