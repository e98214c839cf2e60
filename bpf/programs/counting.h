/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Which hits of a uprobe count, and how many there were. Comes after one_target.h and arguments.h (bpf/counted_probes.py).
 */
#ifndef GOMEM_COUNTING_H
#define GOMEM_COUNTING_H
#include <linux/types.h>

#define PROBES 256
#define TRIAL 8 /* a flag of the cookie: a hit of bpf/probes/trial_hits.py, which is not the target's */

struct hits {
	u64 of[PROBES];
};

/* Each CPU has its own sums. A program can be preempted by another thread's on the same CPU, so they add atomically
 * all the same. */
BPF_PERCPU_ARRAY(hits, struct hits, 1);
BPF_PERCPU_ARRAY(all_hits, u64, 1);
BPF_ARRAY(counting, u64, 1);

static __always_inline int is_trial(u64 cookie)
{
	return !!(cookie >> 24 & TRIAL);
}

static __always_inline void count_hit(u64 cookie)
{
	int zero = 0;
	struct hits *of_probes = hits.lookup(&zero);
	u64 *all = all_hits.lookup(&zero);

	if (of_probes)
		__sync_fetch_and_add(&of_probes->of[cookie & (PROBES - 1)], 1);
	if (all)
		__sync_fetch_and_add(all, 1);
}

/* Whether a hit counts: one of a trial, or of the target while that is asked for. All of the target's are hits. */
static __always_inline int counts(struct pt_regs *ctx, u64 cookie)
{
	int zero = 0;
	u64 *on;

	if (goes_to_morestack(ctx, cookie))
		return 0;
	if (is_trial(cookie))
		return 1;
	if (!is_target())
		return 0;
	count_hit(cookie);
	on = counting.lookup(&zero);
	return on && *on;
}
#endif
