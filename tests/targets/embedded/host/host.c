// Host loads the Go library LIBRARY, lets it hold MB megabytes, tells an address in its heap, and stands still until its
// standard input ends: host LIBRARY MB.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	void *library = argc > 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!library) {
		fprintf(stderr, "%s\n", argc > 2 ? dlerror() : "host LIBRARY MB");
		return 1;
	}
	((void (*)(int))dlsym(library, "Hold"))(atoi(argv[2]));
	printf("%zu\n", ((size_t (*)(void))dlsym(library, "Address"))());
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}
