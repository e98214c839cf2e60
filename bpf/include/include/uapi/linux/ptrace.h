#ifndef GOMEM_PTRACE_H
#define GOMEM_PTRACE_H
/* The registers of an interrupted x86-64 thread, in the order of the kernel's entry code. This is the context of a
 * BPF_PROG_TYPE_KPROBE program and stable: tools have read it for a decade. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#endif
