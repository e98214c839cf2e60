#ifndef GOMEM_STACKS_H
#define GOMEM_STACKS_H
/* Stacks of Go code at a uprobe, and sums by stack and a number that the program gives. Comes after arguments.h.
 *
 * Compiled with these constants (bpf/stacks.py: stack_constants):
 *   STACK_DEPTH    the most return addresses of a stack, a power of two
 *   STACKS         for how many stacks there is room
 *   STACK_SUMS     for how many pairs of a stack and a number
 *   STACK_SEED     what their hashes begin with
 * and, by the program that it is a part of, with
 *   STACK_SUM      what is summed up: a struct of u64, as small as those that fit on BPF's own stack
 *
 * bpf_get_stackid is no help: at the entry of a function it misses the direct caller, whose frame is not linked yet, it
 * drops a stack that has the hash of another, and it ends with a read that fails, which takes a third of a hit.
 */
#include <linux/types.h>

/* Return addresses, the innermost first. A depth of 0: they are being written. */
struct stack {
	u64 depth;
	u64 of[STACK_DEPTH];
};

/* bpf/stacks.py: dtype PAIR. */
struct stack_pair {
	u64 stack;
	u64 number;
};

/* bpf/stacks.py: _FRAMES and _LOST. */
struct stack_figures {
	u64 frames;
	u64 lost;
};

/* A stack ends with its first return address that is not in [low, low + size); with its last one where the size is 0. */
struct stack_within {
	u64 low;
	u64 size;
};

BPF_TABLE("hash", u64, struct stack, stacks, STACKS);
BPF_TABLE("percpu_hash", struct stack_pair, STACK_SUM, stack_sums, STACK_SUMS);
BPF_PERCPU_ARRAY(stack_figures, struct stack_figures, 1);
BPF_ARRAY(stack_within, struct stack_within, 1);
BPF_ARRAY(no_stack, struct stack, 1); /* all zeros: BPF's own stack has no room for one */

/* Follow the frame pointers. Returns how many return addresses there are, and their hash in `id`; writes them where
 * `into` is. A target may forge frames: each read is checked, and their number is bounded. */
static __always_inline u32 walk_stack(struct pt_regs *ctx, u64 cookie, u64 *id, struct stack *into)
{
	u64 return_slot = return_slot_of(ctx, cookie), hash = STACK_SEED;
	struct stack_within *within;
	int zero = 0;
	struct {
		u64 next;
		u64 address;
	} here;
	u32 i;

	within = stack_within.lookup(&zero);
	if (!within)
		return 0;
	here.address = user_word(return_slot);
	here.next = ctx->bp;
	/* Behind its prologue the function has a frame of its own, which leads to the same caller. */
	if (here.next + sizeof(u64) == return_slot)
		here.next = user_word(here.next);
	/* Unrolled, it takes longer to compile, and the kernel longer to verify. */
#pragma clang loop unroll(disable)
	for (i = 0; i < STACK_DEPTH; i++) {
		if (!here.address)
			break;
		if (into)
			into->of[i & (STACK_DEPTH - 1)] = here.address;
		hash = (hash ^ here.address) * 0x9e3779b97f4a7c15ULL;
		hash ^= hash >> 32;
		if ((within->size && here.address - 1 - within->low >= within->size) || !here.next ||
		    read_user(&here, sizeof(here), (void *)here.next)) {
			i++;
			break;
		}
	}
	*id = hash;
	return i;
}

/* Whether the addresses of the stack with this hash are kept; they are from now on, if there is room. */
static __always_inline int keep_stack(struct pt_regs *ctx, u64 cookie, u64 id)
{
	struct stack *kept = stacks.lookup(&id), *blank;
	int zero = 0;

	if (!kept) {
		blank = no_stack.lookup(&zero);
		if (!blank)
			return 0;
		/* Another CPU may have been quicker: then this insert fails, and its entry is found. */
		stacks.insert(&id, blank);
		kept = stacks.lookup(&id);
		if (!kept)
			return 0;
	}
	/* Two CPUs may write the same words. */
	if (!kept->depth)
		kept->depth = walk_stack(ctx, cookie, &id, kept);
	return 1;
}

/* The sum of this CPU for the stack of this hit and a number; NULL where there is no room, which is counted. A program
 * can be preempted by another thread's on the same CPU, so add to it atomically. The hash of the stack is put at `id`. */
static __always_inline STACK_SUM *sum_of_stack_at(struct pt_regs *ctx, u64 cookie, u64 number, u64 *id)
{
	struct stack_pair pair = {.number = number};
	STACK_SUM fresh = {}, *sum;
	struct stack_figures *figures;
	int zero = 0;
	u32 depth;

	depth = walk_stack(ctx, cookie, &pair.stack, NULL);
	*id = pair.stack;
	figures = stack_figures.lookup(&zero);
	if (figures)
		__sync_fetch_and_add(&figures->frames, depth);
	sum = stack_sums.lookup(&pair);
	if (sum)
		return sum;
	if (keep_stack(ctx, cookie, pair.stack)) {
		stack_sums.insert(&pair, &fresh);
		sum = stack_sums.lookup(&pair);
	}
	if (!sum && figures)
		__sync_fetch_and_add(&figures->lost, 1);
	return sum;
}

/* The same, for whom the stack itself does not matter. */
static __always_inline STACK_SUM *sum_of_stack(struct pt_regs *ctx, u64 cookie, u64 number)
{
	u64 id;

	return sum_of_stack_at(ctx, cookie, number, &id);
}
#endif
