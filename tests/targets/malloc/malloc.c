// malloc THREADS BLOCKS SIZE hold|free|busy: the main thread and THREADS others, each in its own arena, allocate BLOCKS of
// about SIZE bytes and write to them, with a small block that stays behind every 50th. With "free" all but the small
// ones are freed; with "busy" the threads do so again and again. Then the C library itself tells: malloc_info (XML), and
// mallinfo2 or mallinfo in a line of JSON. For each line of standard input it calls malloc_trim(0) and says "{}"; it
// stands still until that ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAPPED 3
#define SMALL 40

struct wide { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };

static int blocks, frees, busy, ready;
static size_t size;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static void *kept[1 << 16];
static int keeps;
static char out[1 << 16];

static void *written(size_t bytes)
{
	void *memory = malloc(bytes);
	if (!memory)
		abort();
	return memset(memory, 1, bytes);
}

static void keep(size_t bytes)
{
	void *memory = written(bytes);
	kept[__atomic_fetch_add(&keeps, 1, __ATOMIC_SEQ_CST)] = memory;
}

static void work(void)
{
	void **all = written(blocks * sizeof *all), *small[SMALL];
	for (int at = 0; at < blocks; at++) {
		all[at] = written(size + at % 7 * 48);
		if (at % 50 == 0 && keeps < 1 << 14)
			keep(64);
	}
	for (int at = 0; at < SMALL; at++)
		small[at] = written(24 + at % 3 * 16);
	if (frees) {
		for (int at = 0; at < blocks; at++)
			free(all[at]);
		free(all);
		// The first few of each size go to the thread's tcache, the others to fast bins, where there are any.
		for (int at = 0; at < SMALL; at++)
			free(small[at]);
	}
}

static void *run(void *unused)
{
	pthread_mutex_lock(&turn);
	work();
	pthread_mutex_unlock(&turn);
	__atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
	for (;;) {
		if (busy)
			work();
		else
			pause();
	}
	return unused;
}

static void tell(void)
{
	struct wide told;
	struct wide (*wide)(void) = (struct wide(*)(void))dlsym(RTLD_DEFAULT, "mallinfo2");
	if (wide) {
		told = wide();
	} else {
		struct mallinfo old = mallinfo();
		told = (struct wide){ old.arena, old.ordblks, old.smblks, old.hblks, old.hblkhd, old.usmblks, old.fsmblks,
			old.uordblks, old.fordblks, old.keepcost };
	}
	malloc_info(0, stdout);
	printf("{\"arena\": %zu, \"ordblks\": %zu, \"smblks\": %zu, \"hblks\": %zu, \"hblkhd\": %zu, \"fsmblks\": %zu, "
		"\"uordblks\": %zu, \"fordblks\": %zu, \"keepcost\": %zu}\n", told.arena, told.ordblks, told.smblks, told.hblks,
		told.hblkhd, told.fsmblks, told.uordblks, told.fordblks, told.keepcost);
	fflush(stdout);
}

int main(int count, char **words)
{
	char line[64];
	if (count != 5)
		return 2;
	setvbuf(stdout, out, _IOFBF, sizeof out);
	int threads = atoi(words[1]);
	blocks = atoi(words[2]), size = atol(words[3]), busy = !strcmp(words[4], "busy");
	frees = busy || !strcmp(words[4], "free");
	dlsym(RTLD_DEFAULT, "mallinfo2");
	for (int at = 0; at < MAPPED; at++)
		keep(1 << 20);
	for (int at = 0; at < threads; at++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, run, NULL))
			return 1;
	}
	while (__atomic_load_n(&ready, __ATOMIC_SEQ_CST) < threads)
		usleep(1000);
	work();
	tell();
	while (read(0, line, sizeof line) > 0) {
		malloc_trim(0);
		printf("{}\n");
		fflush(stdout);
	}
	return 0;
}
