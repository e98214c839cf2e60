/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Where to find arguments that no cookie has room for. A part of programs.c where OPERANDS is defined.
 */

/* Where a value is: in a source as the cookies of on_uprobe name them, or (reads) in the memory that it points to,
 * `offset` bytes behind it. Of that the low `bytes` count. */
struct operand {
	s32 offset;
	u8 source;
	u8 reads;
	u8 bytes;
	u8 shift;
};

/* bpf/probes/operands.py: of the uprobe with this counter. While that of a span event is not `on`, its hits are counted and
 * no more. */
struct operands {
	u64 on;
	struct operand of[SYSCALL_ARGS];
};

BPF_ARRAY(operands, struct operands, UPROBES);

static __always_inline u64 operand(struct pt_regs *ctx, struct operand *from)
{
	u64 value = argument(ctx, ctx->sp, from->source);

	if (from->reads)
		value = user_word(value + from->offset);
	if (from->bytes < 8)
		value &= (1ULL << (from->bytes * 8 & 63)) - 1;
	return value << (from->shift & 63);
}

static __always_inline void read_operands(struct pt_regs *ctx, struct event *event, struct operands *wanted)
{
	u32 i;

	if (!wanted)
		return;
	/* Unrolled, it takes about three times as long to compile and verify. */
#pragma clang loop unroll(disable)
	for (i = 0; i < SYSCALL_ARGS; i++)
		if (wanted->of[i].bytes)
			event->args[i] = operand(ctx, &wanted->of[i]);
}
