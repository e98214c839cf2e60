// Threads holds C memory of two kinds, says where it is, and stands still: threads COUNT STACK TOUCH GUARD HEAP [own].
// COUNT threads have stacks of STACK bytes (0: the default) with GUARD bytes of guard below them (-1: the default) and
// write TOUCH bytes of them; HEAP bytes come from malloc and are written. `own`: the stacks are memory that the program
// has mapped itself (pthread_attr_setstack), with as much of its own memory right above each.
// A line of JSON on standard output tells what pthread_getattr_np says of each thread; it ends with standard input.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

struct thread {
	pthread_t id;
	size_t touch;
	void *low;
	size_t size, guard;
	long tid;
};

static pthread_barrier_t ready;

__attribute__((noinline)) static void touch(size_t left)
{
	volatile char page[4096];
	memset((void *)page, 1, sizeof page);
	if (left > sizeof page)
		touch(left - sizeof page);
	page[0] = 2; // no tail call
}

static void *run(void *argument)
{
	struct thread *self = argument;
	char name[16];
	self->tid = syscall(SYS_gettid);
	snprintf(name, sizeof name, "worker-%ld", self->tid);
	prctl(PR_SET_NAME, name);
	pthread_attr_t attributes;
	pthread_getattr_np(pthread_self(), &attributes);
	pthread_attr_getstack(&attributes, &self->low, &self->size);
	pthread_attr_getguardsize(&attributes, &self->guard);
	pthread_attr_destroy(&attributes);
	touch(self->touch);
	pthread_barrier_wait(&ready);
	for (;;)
		pause();
}

static void *written(size_t size)
{
	char *memory = malloc(size);
	for (size_t at = 0; at < size; at += 4096)
		memory[at] = 1;
	return memory;
}

int main(int argc, char **argv)
{
	if (argc < 6)
		return 2;
	int count = atoi(argv[1]), own = argc > 6;
	size_t stack = strtoull(argv[2], NULL, 0), depth = strtoull(argv[3], NULL, 0), heap = strtoull(argv[5], NULL, 0);
	long guard = atol(argv[4]);
	struct thread *all = calloc(count + 1, sizeof *all);
	pthread_barrier_init(&ready, NULL, count + 1);
	for (int at = 0; at < count; at++) {
		pthread_attr_t attributes;
		pthread_attr_init(&attributes);
		if (own) {
			char *low = mmap(NULL, 2 * stack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			memset(low + stack, 1, stack);
			pthread_attr_setstack(&attributes, low, stack);
		} else if (stack)
			pthread_attr_setstacksize(&attributes, stack);
		if (guard >= 0)
			pthread_attr_setguardsize(&attributes, guard);
		all[at].touch = depth;
		if (pthread_create(&all[at].id, &attributes, run, &all[at]))
			return 3;
	}
	pthread_barrier_wait(&ready);
	void *kept = heap ? written(heap) : NULL;
	printf("{\"heap\": %zu, \"threads\": [", heap);
	for (int at = 0; at < count; at++)
		printf("%s{\"low\": %zu, \"size\": %zu, \"guard\": %zu, \"struct\": %zu, \"tid\": %ld}", at ? ", " : "", (size_t)all[at].low,
		       all[at].size, all[at].guard, (size_t)all[at].id, all[at].tid);
	printf("]}\n");
	fflush(stdout);
	char byte;
	while (read(0, &byte, 1) > 0)
		;
	free(kept);
	return 0;
}
