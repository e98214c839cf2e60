//go:build cgo

package main

// #include <stdlib.h>
// #include <string.h>
// static void allocate(void) {
// 	void *kept[64];
// 	for (int i = 0; i < 64; i++) {
// 		kept[i] = malloc(1000u << i % 10);
// 		memset(kept[i], 1, 1000);
// 	}
// 	for (int i = 0; i < 64; i += 2)
// 		kept[i] = realloc(kept[i], 4u << 20);
// 	for (int i = 0; i < 64; i++)
// 		free(kept[i]);
// }
import "C"

func allocateInC() { C.allocate() }
