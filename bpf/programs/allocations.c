/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Counts the target's allocations where mallocgc or one of its variants begins: by size class, and by call stack and
 * type. There are tens of millions in a second, so no allocation is an event: the sums are read now and then
 * (bpf/allocations.py).
 *
 * Compiled by bcc with these constants:
 *   TARGET_TGID, PIDNS_DEV/_INO  as in bpf/programs/one_target.h
 *   MOST_SMALL                   the largest size, bytes, that has a size class (runtime/malloc.go)
 *   MOST_WITHOUT_HEADER          the largest size of an object with pointers that has no malloc header
 *   HEADER                       bytes of that header, 0 where the release has none
 *   MOST_TINY                    what is smaller and has no pointers goes to the tiny allocator
 *   PAGE                         bytes of a page of the runtime
 *   PTR_BYTES_AT                 where abi.Type.PtrBytes is
 *   TYPES                        how many pairs of a type and a row there is room for beside those with stacks
 *   SUM_BYTES, ROW_xxx           bpf/allocations.py: the size of the dtype SUM, and the rows behind the span classes
 *   STACK_xxx, STACKS            as in bpf/programs/stacks.h
 */
#include "one_target.h"
#include "arguments.h"
#include "counting.h"

#define ROWS 256
#define CLASSES 4104 /* bytes of the table by size / 8, up to 32 KB */

/* bpf/allocations.py: dtype SUM. */
struct sum {
	u64 count;
	u64 asked; /* bytes */
	u64 pages; /* bytes of the spans of large objects */
};

_Static_assert(sizeof(struct sum) == SUM_BYTES, "struct sum is not the dtype SUM");

#define STACK_SUM struct sum
#include "stacks.h"

struct rows {
	struct sum of[ROWS];
};

struct classes {
	u8 of[CLASSES];
};

BPF_PERCPU_ARRAY(rows, struct rows, 1);
BPF_PERCPU_ARRAY(untold, struct sum, 1); /* of types for which there was no room */
BPF_TABLE("percpu_hash", u64, struct sum, types, TYPES);
BPF_ARRAY(classes, struct classes, 1);

static __always_inline void add(struct sum *sum, u64 asked, u64 pages)
{
	__sync_fetch_and_add(&sum->count, 1);
	__sync_fetch_and_add(&sum->asked, asked);
	if (pages)
		__sync_fetch_and_add(&sum->pages, pages);
}

/* What the compiler knows to be in bounds, the verifier may not: of a number that this returns, nobody knows, so that a
 * test of it stays in the program. */
static __always_inline u64 unknown(u64 number)
{
	asm volatile("" : "+r"(number));
	return number;
}

/* A span class (size class << 1 | noscan), or one of the rows behind. Objects of a size class have the smallest size
 * that is large enough, which is what the tables size_to_class8 and size_to_class128 say. */
static __always_inline u32 row_of(u64 size, int scan, struct classes *table)
{
	u64 at;

	if (!size)
		return ROW_ZERO; /* all of them are at runtime.zerobase */
	if (!scan && size < MOST_TINY)
		return ROW_TINY;
	if (size > MOST_SMALL)
		return !scan;
	at = size + (scan && size > MOST_WITHOUT_HEADER ? HEADER : 0);
	at = unknown((at + 7) >> 3);
	if (at >= CLASSES)
		return !scan;
	return table->of[at] << 1 | !scan;
}

/* Of those whose stacks have no room, as far as there is room for their types. */
static __always_inline void count_type(u64 key, u64 asked, u64 pages)
{
	struct sum *sum = types.lookup(&key), fresh = {};
	int zero = 0;

	if (!sum) {
		/* Another CPU may have been quicker: then this insert fails, and its entry is found. */
		types.insert(&key, &fresh);
		sum = types.lookup(&key);
	}
	if (!sum)
		sum = untold.lookup(&zero);
	if (sum)
		add(sum, asked, pages);
}

int on_allocation(struct pt_regs *ctx)
{
	u64 cookie = attach_cookie(ctx), size, type, pages = 0, key;
	u32 row;
	struct classes *table;
	struct rows *sums;
	struct sum *sum;
	int zero = 0, scan;

	if (!counts(ctx, cookie))
		return 0;
	table = classes.lookup(&zero);
	sums = rows.lookup(&zero);
	if (!table || !sums)
		return 0;
	size = argument_of(ctx, cookie, 1);
	type = argument_of(ctx, cookie, 2);
	scan = type && user_word(type + PTR_BYTES_AT);
	row = row_of(size, scan, table);
	if (row < 2)
		pages = (size + PAGE - 1) & ~(u64)(PAGE - 1);
	if (is_trial(cookie))
		row = ROW_TRIAL;
	add(&sums->of[unknown(row) & (ROWS - 1)], size, pages);
	key = type << 8 | row;
	sum = sum_of_stack(ctx, cookie, key);
	if (sum)
		add(sum, size, pages);
	else
		count_type(key, size, pages);
	return 0;
}
