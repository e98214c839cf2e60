// Packed carries a static program, scrambled, and unpacks it into anonymous memory as packers such as UPX do: it maps the
// program's segments, writes them there, and jumps to its first instruction with the stack that the kernel made.
// PAYLOAD: the file with the scrambled program. No C library: this has to lie elsewhere than the program.
typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

struct header {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, program_headers, sections;
	u32 flags;
	u16 size, program_header_size, program_header_count;
};
struct part {
	u32 type, flags;
	u64 offset, address, physical, in_file, in_memory, align;
};

__asm__(".section .rodata\n.globl payload, payload_end\npayload: .incbin \"" PAYLOAD "\"\npayload_end:\n.text\n");
extern const u8 payload[], payload_end[];

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static u8 plain(u64 at)
{
	return payload[at] ^ (u8)(0x5a + at * 7);
}

static void copy(u8 *to, u64 from, u64 size)
{
	for (u64 at = 0; at < size; at++)
		to[at] = plain(from + at);
}

u64 unpack(void)
{
	struct header header;
	copy((u8 *)&header, 0, sizeof header);
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < header.program_header_count; i++) {
			struct part part;
			copy((u8 *)&part, header.program_headers + i * sizeof part, sizeof part);
			if (part.type != 1)
				continue;
			u64 start = part.address & ~4095UL, end = (part.address + part.in_memory + 4095) & ~4095UL;
			if (pass == 0) {
				if (call(9, start, end - start, 3, 0x32, -1, 0) != (long)start)
					call(231, 99, 0, 0, 0, 0, 0);
				copy((u8 *)part.address, part.offset, part.in_file);
			} else {
				int protection = (part.flags & 4 ? 1 : 0) | (part.flags & 2) | (part.flags & 1 ? 4 : 0);
				call(10, start, end - start, protection, 0, 0, 0);
			}
		}
	return header.entry;
}

__asm__(".globl _start\n_start: mov %rsp, %rbx\nand $-16, %rsp\ncall unpack\nmov %rbx, %rsp\nxor %edx, %edx\njmp *%rax\n");
