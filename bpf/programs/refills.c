/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Counts by call stack where the target's mcaches take spans ((*mcache).refill), and where it allocates large objects.
 * The sums are read now and then (bpf/refills.py).
 *
 * Compiled by bcc with these constants:
 *   TARGET_TGID, PIDNS_DEV/_INO  as in bpf/programs/one_target.h
 *   STACK_xxx                    as in bpf/programs/stacks.h
 *   ALLOC_AT                     where mcache.alloc is
 *   NELEMS_AT, NELEMS_BYTES      where mspan.nelems is, and how large it is
 *   BEFORE_AT                    where mspan.allocCountBeforeCache is, 2 bytes; absent where a release has none
 *   PAGE                         bytes of a page of the runtime
 *   SUM_BYTES, ROW_xxx           tracer/events/refills.py: the size of the dtype REFILL_SUM, and the rows
 *   KIND_LARGE_ALLOC             tracer/events/record.py: the kind of the probe of large allocations
 */
#include "one_target.h"
#include "arguments.h"
#include "counting.h"

/* tracer/events/refills.py: dtype REFILL_SUM. */
struct refill_sum {
	u64 samples;
	u64 fresh;
	u64 slots;
	u64 squares;
};

_Static_assert(sizeof(struct refill_sum) == SUM_BYTES, "struct refill_sum is not the dtype REFILL_SUM");

#define STACK_SUM struct refill_sum
#include "stacks.h"

#define ROWS 256
#define MOST_PAGES (1 << 28) /* of a large object, whose square is added up */

struct rows {
	struct refill_sum of[ROWS];
};

/* Of each row the stack of the last sample, and how often that was another one than before. */
struct order {
	u64 last[ROWS];
	u64 changes[ROWS];
};

BPF_ARRAY(order, struct order, 1);
BPF_PERCPU_ARRAY(untold, struct rows, 1); /* of hits whose stack found no room */

/* How many objects the mcache has allocated from the span that it gives back now, as refill itself counts them. 0: it
 * has none, since a collection took it away. */
static __always_inline u64 slots_used(u64 mcache, u32 span_class)
{
	u64 span = user_word(mcache + ALLOC_AT + 8 * span_class), slots = 0;
	u16 before = 0;

	read_user(&slots, NELEMS_BYTES, (void *)(span + NELEMS_AT));
#ifdef BEFORE_AT
	read_user(&before, sizeof(before), (void *)(span + BEFORE_AT));
#endif
	slots &= 0xffff;
	return slots > before ? slots - before : 0;
}

static __always_inline u64 pages_of(u64 size)
{
	u64 pages = size / PAGE + !!(size % PAGE);

	return pages < MOST_PAGES ? pages : MOST_PAGES;
}

static __always_inline void add(struct refill_sum *sum, u64 slots)
{
	__sync_fetch_and_add(&sum->samples, 1);
	if (!slots) {
		__sync_fetch_and_add(&sum->fresh, 1);
		return;
	}
	__sync_fetch_and_add(&sum->slots, slots);
	__sync_fetch_and_add(&sum->squares, slots * slots);
}

static __always_inline void note_order(u32 row, u64 stack)
{
	int zero = 0;
	struct order *of_rows = order.lookup(&zero);

	if (!of_rows || of_rows->last[row & (ROWS - 1)] == stack)
		return;
	if (of_rows->last[row & (ROWS - 1)])
		__sync_fetch_and_add(&of_rows->changes[row & (ROWS - 1)], 1);
	of_rows->last[row & (ROWS - 1)] = stack;
}

int on_refill(struct pt_regs *ctx)
{
	u64 cookie = attach_cookie(ctx), first, slots, stack = 0;
	u32 row = ROW_LARGE;
	struct refill_sum *sum;
	struct rows *without;
	int zero = 0;

	if (!counts(ctx, cookie))
		return 0;
	first = argument_of(ctx, cookie, 1);
	if ((cookie >> 8 & 255) == KIND_LARGE_ALLOC) {
		slots = pages_of(first);
	} else {
		row = first & (ROWS - 1);
		slots = slots_used(argument_of(ctx, cookie, 2), row);
	}
	if (is_trial(cookie))
		row = ROW_TRIAL;
	sum = sum_of_stack_at(ctx, cookie, row, &stack);
	note_order(row, stack);
	if (!sum) {
		without = untold.lookup(&zero);
		if (!without)
			return 0;
		sum = &without->of[row & (ROWS - 1)];
	}
	add(sum, slots);
	return 0;
}
