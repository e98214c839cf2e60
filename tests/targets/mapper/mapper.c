// Mapper changes its own mappings at random: mapper SEED CALLS THREADS [BYTES [LOCKED]], one burst of CALLS calls a thread
// for each byte on standard input. It makes raw system calls in a range of each thread's own and where the kernel chooses,
// many of which fail. BYTES: so much address space it may have beyond what it begins with (RLIMIT_AS), 0 for any. LOCKED:
// all that it maps is locked, and of that so much is allowed (RLIMIT_MEMLOCK), unless it has CAP_IPC_LOCK.
// It needs no memory of its own: what it maps may land in each other's holes, and is never touched.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096L
#define PAGES 96
#define OTHERS 64
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct mapper {
	uint64_t state;
	long base;
	int others;
	struct { long at, size; } other[OTHERS];
};

static int file, threads, calls;
static struct mapper mappers[16];

static uint64_t next(struct mapper *m)
{
	m->state ^= m->state << 13;
	m->state ^= m->state >> 7;
	m->state ^= m->state << 17;
	return m->state;
}

#define BELOW(n) ((long)(next(m) % (n)))
#define ONE_OF(...) ((long[]){__VA_ARGS__}[BELOW(sizeof((long[]){__VA_ARGS__}) / sizeof(long))])

static void keep(struct mapper *m, long at, long size)
{
	if (at < 0)
		return;
	int slot = m->others < OTHERS ? m->others++ : BELOW(OTHERS);
	m->other[slot].at = at;
	m->other[slot].size = size;
}

static void range(struct mapper *m, long *at, long *size)
{
	long first = BELOW(PAGES), pages = ONE_OF(1, 1, 2, 3, 8, 24);

	if (pages > PAGES - first)
		pages = PAGES - first;
	*at = m->base + first * PAGE;
	*size = pages * PAGE - ONE_OF(0, 0, 0, 1, 4095);
}

static void any(struct mapper *m, long *at, long *size)
{
	if (!m->others || BELOW(2)) {
		range(m, at, size);
		return;
	}
	int slot = BELOW(m->others);
	*at = m->other[slot].at;
	*size = m->other[slot].size;
	m->other[slot] = m->other[--m->others];
}

static void map(struct mapper *m)
{
	long at = 0, size = ONE_OF(1, 4096, 70000, 1 << 20) * BELOW(3), result;
	long flags = ONE_OF(MAP_PRIVATE, MAP_SHARED), fd = BELOW(3) ? -1 : file;

	if (fd < 0)
		flags |= MAP_ANONYMOUS;
	if (BELOW(3)) {
		range(m, &at, &size);
		flags |= ONE_OF(MAP_FIXED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_FIXED | MAP_FIXED_NOREPLACE, 0);
	} else if (!BELOW(5)) {
		flags |= MAP_GROWSDOWN;
	}
	result = syscall(SYS_mmap, at, size, ONE_OF(0, 1, 2, 3, 5, 7), flags, fd, 0L);
	if (!(flags & MAP_FIXED))
		keep(m, result, size);
}

static void remap(struct mapper *m)
{
	long at, size, to, unused, flags = ONE_OF(0, 1, 1, 3, 3, 5, 7), new, result;

	any(m, &at, &size);
	range(m, &to, &unused);
	new = ONE_OF(size, unused, size / 3 + 1, size * 2, size + PAGE);
	if ((flags & MREMAP_FIXED) && to + new > m->base + PAGES * PAGE)
		new = unused;
	result = syscall(SYS_mremap, at, BELOW(20) ? size : 0, new, flags, to);
	if (!(flags & MREMAP_FIXED))
		keep(m, result, new);
}

static void burst(struct mapper *m)
{
	long at, size;

	for (int i = 0; i < calls; i++) {
		switch (BELOW(10)) {
		case 0: case 1: case 2:
			map(m);
			break;
		case 3: case 4:
			any(m, &at, &size);
			syscall(SYS_munmap, at + !BELOW(8), BELOW(3) ? size : size / 2);
			break;
		case 5: case 6:
			any(m, &at, &size);
			syscall(SYS_mprotect, at, size, ONE_OF(0, 1, 2, 3, 5, 7));
			break;
		case 7: case 8:
			remap(m);
			break;
		case 9:
			if (BELOW(2)) {
				any(m, &at, &size);
				syscall(SYS_madvise, at, size, ONE_OF(MADV_DONTNEED, MADV_FREE));
			} else if (threads == 1) {
				at = syscall(SYS_brk, 0L);
				syscall(SYS_brk, at + ONE_OF(1, 4096, 100000, 1L << 40, -4096 * 3, -1));
			}
		}
	}
}

static pthread_barrier_t begin, end;

static void *thread(void *argument)
{
	for (;;) {
		pthread_barrier_wait(&begin);
		burst(argument);
		pthread_barrier_wait(&end);
	}
	return NULL;
}

int main(int count, char **words)
{
	pthread_t running;
	char byte;

	if (count < 4)
		return 2;
	calls = atoi(words[2]);
	threads = atoi(words[3]);
	file = memfd_create("file", 0);
	if (file < 0 || ftruncate(file, 2 << 20) || threads < 1 || threads > 16)
		return 1;
	// Their stacks are there before anything else, so that nobody's range was ever one of them.
	pthread_barrier_init(&begin, NULL, threads);
	pthread_barrier_init(&end, NULL, threads);
	for (int i = 1; i < threads; i++)
		if (pthread_create(&running, NULL, thread, &mappers[i]))
			return 1;
	for (int i = 0; i < threads; i++) {
		mappers[i].state = 0x9e3779b97f4a7c15ull * (atoi(words[1]) * 16 + i + 1);
		mappers[i].base = syscall(SYS_mmap, 0L, PAGES * PAGE, 0L, (long)(MAP_PRIVATE | MAP_ANONYMOUS), -1L, 0L);
	}
	if (count > 4 && atol(words[4])) {
		long pages;
		FILE *statm = fopen("/proc/self/statm", "r");
		struct rlimit limit;

		if (!statm || fscanf(statm, "%ld", &pages) != 1)
			return 1;
		limit.rlim_cur = limit.rlim_max = pages * PAGE + atol(words[4]);
		setrlimit(RLIMIT_AS, &limit);
	}
	if (count > 5) {
		struct rlimit limit = {atol(words[5]), atol(words[5])};

		if (setrlimit(RLIMIT_MEMLOCK, &limit) || mlockall(MCL_FUTURE | MCL_ONFAULT))
			return 1;
	}
	if (write(1, "ready\n", 6) != 6)
		return 1;
	while (read(0, &byte, 1) == 1) {
		pthread_barrier_wait(&begin);
		burst(&mappers[0]);
		pthread_barrier_wait(&end);
		if (write(1, "done\n", 5) != 5)
			return 1;
	}
	return 0;
}
