/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Keeps the kernel's own count of the target's resident pages, with its peak. It changes at nearly every page fault,
 * so no change is an event: the figures are read now and then (bpf/rss.py).
 *
 * Compiled by bcc with these constants:
 *   TARGET_TGID, PIDNS_DEV/_INO     as in bpf/programs/one_target.h
 *   MM_ID_AT, CURR_AT, MEMBER_AT, SIZE_AT
 *                                   where the record of the tracepoint kmem:rss_stat has its fields
 *   ANON, FILE, SHMEM               the numbers of its members that make up the resident set
 *   TALLY_BYTES, FACTS              the size of bpf/rss.py: TALLY, and how many facts it knows
 */
#include "one_target.h"

#define MEMBERS 4 /* NR_MM_COUNTERS of the kernel */

/* bpf/rss.py: dtype PEAK. */
struct peak {
	u64 round;
	u64 space;
	s64 size;
	s64 total;
};

/* bpf/rss.py: dtype TALLY. Each CPU has its own, so two never write the same one. */
struct tally {
	u64 time; /* of the last change that this CPU saw; 0: none */
	u64 space;
	s64 size;
	u64 changes;
	struct peak peaks[2]; /* of this round and the one before, by their lowest bit: the reader begins a new round, and
				 then reads in peace what is left of the last one */
};

_Static_assert(sizeof(struct tally) == TALLY_BYTES, "struct tally is not the dtype TALLY");

/* As bpf/rss.py reads them. The address space of the process has a number of ours, which exec changes. */
enum { SPACE, MM_ID, ROUND, FACTS_HERE };
_Static_assert(FACTS_HERE == FACTS, "bpf/rss.py has other facts");

BPF_PERCPU_ARRAY(tallies, struct tally, MEMBERS);
BPF_ARRAY(latest, s64, MEMBERS);
BPF_ARRAY(facts, u64, FACTS);

static __always_inline u64 *fact(int which)
{
	return facts.lookup(&which);
}

static __always_inline s64 latest_of(int member)
{
	s64 *size = latest.lookup(&member);

	return size ? *size : 0;
}

static __always_inline void forget_latest(void)
{
	int member;
	s64 *size;

#pragma unroll
	for (member = 0; member < MEMBERS; member++) {
		int key = member;

		size = latest.lookup(&key);
		if (size)
			*size = 0;
	}
}

/* Tracepoint kmem:rss_stat. `mm_id` is a hash of the address of an address space, `curr` whether it is that of the
 * current task. So the target's own changes tell its mm_id, and by that we know the changes that others make in it:
 * reclaim, khugepaged, a debugger. */
int on_rss_stat(void *ctx)
{
	u32 id = *(u32 *)(ctx + MM_ID_AT), curr = *(u32 *)(ctx + CURR_AT);
	int member = *(int *)(ctx + MEMBER_AT), mine;
	s64 size = *(s64 *)(ctx + SIZE_AT), total, *last;
	u64 *mm_id = fact(MM_ID), *space = fact(SPACE), *round = fact(ROUND);
	struct tally *tally;
	struct peak *peak;

	if (!mm_id || !space || !round)
		return 0;
	mine = is_target();
	if (mine && curr && *mm_id != id) {
		if (*mm_id) {
			forget_latest();
			*space += 1;
		}
		*mm_id = id;
	}
	/* A change that the target makes in an address space that is no longer its own: it exits, or has executed. */
	if (!id || *mm_id != id || (mine && !curr))
		return 0;
	tally = tallies.lookup(&member);
	last = latest.lookup(&member);
	if (!tally || !last)
		return 0;
	*last = size;
	total = latest_of(ANON) + latest_of(FILE) + latest_of(SHMEM);
	peak = &tally->peaks[*round & 1];
	if (peak->round != *round || peak->space != *space) {
		peak->round = *round;
		peak->space = *space;
		peak->size = size;
		peak->total = total;
	}
	if (size > peak->size)
		peak->size = size;
	if (total > peak->total)
		peak->total = total;
	tally->space = *space;
	tally->size = size;
	tally->changes++;
	tally->time = bpf_ktime_get_ns();
	return 0;
}

/* Raw tracepoint sched_process_exec. Before the first change nothing tells the new address space from the old one. */
int on_rss_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 *mm_id = fact(MM_ID), *space = fact(SPACE);

	if (mm_id && space && is_target() && !*mm_id) {
		forget_latest();
		*space += 1;
	}
	return 0;
}
