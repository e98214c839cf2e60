/* A 64-bit program that makes 32-bit system calls (int 0x80), once for each line on its standard input. It writes what
 * it did to the memory as one JSON object a line, and an empty line at the end of a round. Between them it makes calls
 * whose 32-bit numbers are those of 64-bit memory calls: link (9), unlink (10), execve (11) and chdir (12), all refused.
 * With GENERATED the instruction is not in the program: it makes it when it starts. With GROWS it makes one 32-bit mmap
 * for each line instead, and says nothing of it. */
#include <stdio.h>
#include <sys/mman.h>

#define BASE 0x20000000L
#define PAGE 4096L

static unsigned char *generated; /* int 0x80; ret */

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long sixth __asm__("r12") = f;

	/* The sixth argument goes into rbp, which no constraint can name. */
#ifdef GENERATED
	register void *instruction __asm__("r13") = generated;

	__asm__ volatile("push %%rbp\n\tmov %%r12, %%rbp\n\tcall *%%r13\n\tpop %%rbp"
			 : "=a"(result)
			 : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(sixth), "r"(instruction)
			 : "memory", "r8", "r9", "r10", "r11");
#else
	__asm__ volatile("push %%rbp\n\tmov %%r12, %%rbp\n\tint $0x80\n\tpop %%rbp"
			 : "=a"(result)
			 : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), "r"(sixth)
			 : "memory", "r8", "r9", "r10", "r11");
#endif
	return result;
}

static void tell(const char *name, long result, int count, const long *args)
{
	int i;

	printf("{\"name\": \"%s\", \"result\": %ld, \"args\": [", name, result);
	for (i = 0; i < count; i++)
		printf("%s%ld", i ? ", " : "", args[i]);
	printf("]}\n");
}

static void did(const char *name, long number, int count, long a, long b, long c, long d, long e, long f)
{
	long args[] = {a, b, c, d, e, number == 192 ? f * PAGE : f};

	tell(name, call(number, a, b, c, d, e, f), count, args);
}

int main(void)
{
	char line[16];
	char *low = mmap((void *)0x10000000, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	unsigned *old = (unsigned *)(low + 512);

	generated = mmap(0, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	generated[0] = (unsigned char)(low[0] + 0xcd), generated[1] = 0x80, generated[2] = 0xc3;
#ifdef GROWS
	for (long at = BASE; fgets(line, sizeof(line), stdin); at += 2 * PAGE)
		call(192, at, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
#endif
	while (fgets(line, sizeof(line), stdin)) {
		call(12, 1, 0, 0, 0, 0, 0);
		did("mmap", 192, 6, BASE, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, 0, 0);
		call(9, 1, 1, 0, 0, 0, 0);
		did("mprotect", 125, 3, BASE, PAGE, PROT_READ, 0, 0, 0);
		call(10, 1, 0, 0, 0, 0, 0);
		did("madvise", 219, 3, BASE + PAGE, 4 * PAGE, MADV_DONTNEED, 0, 0, 0);
		did("madvise", 219, 3, BASE + 1, PAGE, MADV_DONTNEED, 0, 0, 0);
		did("mremap", 163, 5, BASE, 16 * PAGE, 8 * PAGE, 0, 0, 0);
		call(11, 1, 0, 0, 0, 0, 0);
		did("munmap", 91, 2, BASE, 8 * PAGE, 0, 0, 0, 0);
		did("brk", 45, 1, 0, 0, 0, 0, 0, 0);
		old[0] = BASE + 0x100000, old[1] = 2 * PAGE, old[2] = PROT_READ;
		old[3] = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, old[4] = 0, old[5] = 0;
		long args[] = {old[0], old[1], old[2], old[3], old[4], old[5]};
		tell("mmap", call(90, (long)old, 0, 0, 0, 0, 0), 6, args);
		did("munmap", 91, 2, BASE + 0x100000, 2 * PAGE, 0, 0, 0, 0);
		puts("");
		fflush(stdout);
	}
	return 0;
}
