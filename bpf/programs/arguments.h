/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What a uprobe is told by its cookie, and where it finds the arguments of the function that it sits on.
 */
#ifndef GOMEM_ARGUMENTS_H
#define GOMEM_ARGUMENTS_H
#include <uapi/linux/ptrace.h>
#include <linux/types.h>

/* By its own name, bcc reads all of /proc/kallsyms at each place that calls it, to learn whether the kernel has it:
 * 0.1 s each. One that has ring buffers does. */
static long (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;

static __always_inline u64 user_word(u64 address)
{
	u64 word = 0;

	read_user(&word, sizeof(word), (void *)address);
	return word;
}

/* The cookie of a uprobe says all there is to know of it; bpf/probes/uprobes.py packs it. From the low bits up:
 * 8 counter, 8 kind, 8 return address offset / 8, 4 flags, then for each of three arguments 8 source and 4 shift. */
#define BRANCH_IF_MORESTACK 1
#define FEW_CALLERS 2
#define FEW 3
#define MORE_ARGUMENTS 4
#define SOURCE_STACK 64
#define FLAG_CF 1
#define FLAG_ZF 64

/* The cookie of the uprobe that was hit. The two instructions behind the call do nothing: where the kernel has no such
 * helper, bpf/probes/uprobe_program.py puts the cookie itself in their place, and nothing in that of the call. */
static __always_inline u64 attach_cookie(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);

	asm volatile("%0 = %0\n\t%0 = %0" : "+r"(cookie));
	return cookie;
}

static __always_inline u64 argument(struct pt_regs *ctx, u64 return_slot, u32 source)
{
	if (source >= SOURCE_STACK)
		return user_word(return_slot + (u64)(source - SOURCE_STACK) * 8);
	switch (source) {
	case 1: return ctx->ax;
	case 2: return ctx->bx;
	case 3: return ctx->cx;
	case 4: return ctx->di;
	case 5: return ctx->si;
	case 6: return ctx->r8;
	case 7: return ctx->r9;
	case 8: return ctx->r10;
	case 9: return ctx->r11;
	case 10: return ctx->dx;
	}
	return 0;
}

/* Whether a hit is on the `jbe` of a stack check and about to branch: the call goes to morestack, and comes again. */
static __always_inline int goes_to_morestack(struct pt_regs *ctx, u64 cookie)
{
	return cookie >> 24 & BRANCH_IF_MORESTACK && ctx->flags & (FLAG_CF | FLAG_ZF);
}

static __always_inline u64 return_slot_of(struct pt_regs *ctx, u64 cookie)
{
	return ctx->sp + (cookie >> 16 & 255) * 8;
}

/* One of the three arguments that the cookie names. */
static __always_inline u64 argument_of(struct pt_regs *ctx, u64 cookie, u32 which)
{
	u64 place = cookie >> (28 + 12 * which);

	return argument(ctx, return_slot_of(ctx, cookie), place & 255) << (place >> 8 & 15);
}
#endif
