/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * Counts the target's page faults by region. They come every few microseconds, so no fault is an event: the sums are
 * read now and then (bpf/page_faults.py).
 *
 * Compiled by bcc with these constants:
 *   TARGET_TGID, PIDNS_DEV/_INO  as in bpf/programs/one_target.h
 *   REGION_SHIFT                 log2 of the bytes of a region
 *   REGIONS                      how many regions are told apart
 *   EXECS                        how many programs of one process are told apart; those behind them count as the last
 *   REGION_BYTES, COUNTERS       the size of bpf/page_faults.py: REGION, and how many counters it knows
 */
#include "one_target.h"

#define GRANULES 64 /* of a region */
#define GRANULE_SHIFT (REGION_SHIFT - 6)

/* The error code of a page fault on x86 (arch/x86/include/asm/trap_pf.h). */
#define PF_PROT 1
#define PF_WRITE 2

/* bpf/page_faults.py: dtype REGION. */
struct region {
	u64 faults;
	u64 by_kernel;
	u64 writes;
	u64 present; /* the page was in RAM: copy on write, or a protection that does not allow it */
	u8 touched[GRANULES];
};

_Static_assert(sizeof(struct region) == REGION_BYTES, "struct region is not the dtype REGION");

/* Once for each program that the process executes: what found no room in the map, as in struct region. */
enum { FAULTS, BY_KERNEL, WRITES, PRESENT, SUMS };
enum { USER_HITS = SUMS * EXECS, KERNEL_HITS, COUNTERS_HERE };
_Static_assert(COUNTERS_HERE == COUNTERS, "bpf/page_faults.py has other counters");
/* As bpf/page_faults.py reads them. */
enum { EXECUTED, EXECUTED_AT, FACTS };

BPF_HASH(regions, u64, struct region, REGIONS);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);
BPF_ARRAY(facts, u64, FACTS);

static __always_inline void count(u32 which)
{
	int key = which;
	u64 *value = counters.lookup(&key);

	if (value)
		++*value;
}

static __always_inline u64 *fact(int which)
{
	return facts.lookup(&which);
}

static __always_inline struct region *region_of(u64 key)
{
	struct region *region = regions.lookup(&key), fresh = {};

	if (region)
		return region;
	/* Another CPU may have been quicker: then this insert fails, and its region is found. */
	regions.insert(&key, &fresh);
	return regions.lookup(&key);
}

/* Nothing is mapped below vm.mmap_min_addr. The walk of a user stack ends with a read there: the faults are ours. */
#define LOWEST_MAPPED 65536

static __always_inline int fault(u64 address, u64 error, u32 hits)
{
	u64 *executed = fact(EXECUTED), program;
	struct region *region;
	u32 sums;

	/* The kernel's own memory is in the upper half. */
	if ((s64)address < 0 || !executed || !is_target())
		return 0;
	if (hits == KERNEL_HITS && address < LOWEST_MAPPED)
		return 0;
	count(hits);
	program = *executed < EXECS ? *executed : EXECS - 1;
	region = region_of(program << 56 | address >> REGION_SHIFT);
	if (!region) {
		sums = program * SUMS;
		count(sums + FAULTS);
		if (hits == KERNEL_HITS)
			count(sums + BY_KERNEL);
		if (error & PF_WRITE)
			count(sums + WRITES);
		if (error & PF_PROT)
			count(sums + PRESENT);
		return 0;
	}
	/* Others may be in the same region at the same moment: add atomically, and set a byte of one's own. */
	__sync_fetch_and_add(&region->faults, 1);
	if (hits == KERNEL_HITS)
		__sync_fetch_and_add(&region->by_kernel, 1);
	if (error & PF_WRITE)
		__sync_fetch_and_add(&region->writes, 1);
	if (error & PF_PROT)
		__sync_fetch_and_add(&region->present, 1);
	region->touched[address >> GRANULE_SHIFT & (GRANULES - 1)] = 1;
	return 0;
}

/* Raw tracepoints page_fault_user and page_fault_kernel (address, registers, error code). */
int on_page_fault_user(struct bpf_raw_tracepoint_args *ctx)
{
	return fault(ctx->args[0], ctx->args[2], USER_HITS);
}

int on_page_fault_kernel(struct bpf_raw_tracepoint_args *ctx)
{
	return fault(ctx->args[0], ctx->args[2], KERNEL_HITS);
}

/* Raw tracepoint sched_process_exec. What follows is another program's. */
int on_page_fault_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 *executed = fact(EXECUTED), *at = fact(EXECUTED_AT);

	if (executed && at && is_target()) {
		*at = bpf_ktime_get_ns();
		*executed += 1;
	}
	return 0;
}
