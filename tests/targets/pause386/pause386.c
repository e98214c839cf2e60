/* A 32-bit program that is no Go program, needs no C library, and waits. */
void _start(void)
{
	for (;;) {
		int number = 29, result; /* pause */

		__asm__ volatile("int $0x80" : "=a"(result) : "0"(number) : "memory");
	}
}
