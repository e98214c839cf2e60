/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * How programs.c knows its targets and counts what is theirs.
 *
 * bpf/shared_program.py gives a target a slot of the array `targets`, which user space has mapped, and then puts its
 * process id into the hash `slots`. From the hash it is removed at the end of the process, by on_exit_of_group here
 * or, where the kernel does not tell, by user space; the slot stays until user space has read the counters.
 */

#define COUNTERS (HITS + UPROBES)
#define BUDGET_WINDOW 1000000000 /* ns */

/* Of two targets that had the same slot one after the other, or the same process id, `id` differs. */
struct target {
	u32 key; /* its process id; the high bits say in which of `namespaces` */
	u32 id;
	u32 budget; /* events in a window; more of them pause the target */
	u32 paused; /* until user space clears it, what happens is counted and no more */
	u32 spent;  /* of the budget, in this window */
	u32 leader_exited;
	u64 window; /* when it began */
	u64 over_budget;
	u64 counters[COUNTERS];
};

_Static_assert(sizeof(struct target) == TARGET_BYTES, "struct target is not target_dtype()");
_Static_assert(__builtin_offsetof(struct target, counters) == TARGET_COUNTERS_AT, "target_dtype()'s counters lie elsewhere");

/* bpf/shared_program.py: dtype ADDRESSED. */
struct record {
	struct event event;
	u32 target; /* its id */
	u32 unused;
};

BPF_F_TABLE("array", int, struct target, targets, TARGETS, BPF_F_MMAPABLE);
BPF_HASH(slots, u32, u32, TARGETS);
BPF_PERCPU_ARRAY(submitted, u64, 1);

#define KEY_TGID_BITS 24
#define TGID_OF(key) ((key) & ((1 << KEY_TGID_BITS) - 1))

#ifdef PID_NAMESPACES
struct pid_namespace {
	u64 device;
	u64 inode; /* 0 after the last */
};

BPF_ARRAY(namespaces, struct pid_namespace, PID_NAMESPACES);
#endif

/* The key that the current process would have as a target, and its thread's id there; 0 for one of a foreign
 * PID namespace. The kernel tells a task's ids only to those who name its own namespace. */
static __always_inline u32 current_key(u32 *tid)
{
#ifdef PID_NAMESPACES
	struct bpf_pidns_info ids = {};
	struct pid_namespace *namespace;
	int i;

#pragma unroll
	for (i = 0; i < PID_NAMESPACES; i++) {
		int index = i;

		namespace = namespaces.lookup(&index);
		if (!namespace || !namespace->inode)
			return 0;
		if (!bpf_get_ns_current_pid_tgid(namespace->device, namespace->inode, &ids, sizeof(ids))) {
			*tid = ids.pid;
			return ids.tgid | i << KEY_TGID_BITS;
		}
	}
	return 0;
#else
	u64 ids = bpf_get_current_pid_tgid();

	*tid = ids;
	return ids >> 32;
#endif
}

static __always_inline struct target *target_of(u32 key)
{
	u32 *slot = key ? slots.lookup(&key) : NULL;
	struct target *target;
	int index;

	if (!slot)
		return NULL;
	index = *slot;
	target = targets.lookup(&index);
	/* Whoever has the slot next has another key, in case it was given away since. */
	return target && target->key == key ? target : NULL;
}

/* The thread id of the current task if it belongs to a target, else 0. That a field of the target is read before the
 * thread id is tested keeps compilers from folding both tests into one, after which the verifier would not know that
 * whoever has a thread id has a target. */
static __always_inline u32 target_thread(struct target **target)
{
	u32 tid = 0, key = current_key(&tid);

	*target = target_of(key);
	if (!*target)
		return 0;
	/* After the leader's exit its thread id is used again only when the process is gone, and so by another one. */
	if ((*target)->leader_exited && tid == TGID_OF(key))
		return 0;
	return tid;
}

/* Raw tracepoint sched_process_exec (task, its thread id before). Another thread than the leader may call execve: the
 * leader exits then, and the caller gets the leader's id. */
static __always_inline u32 executing_thread(struct bpf_raw_tracepoint_args *ctx, struct target **target)
{
	u32 tid = 0;

	*target = target_of(current_key(&tid));
	if (!*target)
		return 0;
	if ((*target)->leader_exited) {
		if ((u32)ctx->args[1] == bpf_get_current_pid_tgid() >> 32)
			return 0;
		(*target)->leader_exited = 0;
	}
	return tid;
}

/* How many of the threads whose ids have these low bits are in `pending`. Every system call of the machine ends with a
 * look here, which costs a tenth of one there, or of reading the call's number from the registers. */
#define THREADS 4096
BPF_ARRAY(under_way, u64, THREADS);

static __always_inline void mark_under_way(u64 thread, s64 change)
{
	int low = thread & (THREADS - 1);
	u64 *calls = under_way.lookup(&low);

	if (calls)
		__sync_fetch_and_add(calls, change);
}

static __always_inline int may_be_under_way(u64 thread)
{
	int low = thread & (THREADS - 1);
	u64 *calls = under_way.lookup(&low);

	return calls && *calls;
}

static __always_inline void forget_call(u64 *thread)
{
	if (!pending.delete(thread))
		mark_under_way(*thread, -1);
}

/* The verifier loses the bounds of a number that the compiler keeps on the stack, so the test is here. */
static __always_inline void count(struct target *target, u32 which)
{
	if (which < COUNTERS)
		__sync_fetch_and_add(&target->counters[which], 1);
}

/* A call is lost if its end was missed: the thread makes another, which is seen at the same place, or ends. A kernel that
 * interrupts BPF programs leaves some out: at its functions, and from about Linux 7 on at tracepoints of system calls. */
static __always_inline void count_unended(struct target *target, u64 thread, u32 kind)
{
	struct pending *call = pending.lookup(&thread);

	if (!call || SEEN_AT(call->kind) != SEEN_AT(kind))
		return;
	count(target, LOST_PENDING);
	count(target, UNENDED);
}

static __always_inline u32 exiting_leader(struct target **target)
{
	u64 call = bpf_get_current_pid_tgid();
	u32 tid = target_thread(target);

	if (!tid)
		return 0;
	count_unended(*target, call, AT_FUNCTION);
	forget_call(&call);
	if (tid != TGID_OF((*target)->key))
		return 0;
	(*target)->leader_exited = 1;
	return tid;
}

static __always_inline u64 count_submitted(void)
{
	int key = 0;
	u64 *value = submitted.lookup(&key);

	return value ? ++*value : 0;
}

/* Whether the target is paused, so that a call need not be remembered: its hit is counted now. */
static __always_inline int is_paused(struct target *target, u32 hits)
{
	if (!target->paused)
		return 0;
	count(target, hits);
	__sync_fetch_and_add(&target->over_budget, 1);
	return 1;
}

/* Targets that flood us get no room, so that there is some for the others. The beginning and the end of a program are
 * always told. Two CPUs that open a window at once do no more harm than a budget that is a few events too large. */
static __always_inline int is_over_budget(struct target *target, u32 kind)
{
	u64 now;

	if (kind == KIND_EXEC || kind == KIND_EXIT)
		return 0;
	if (!target->paused) {
		now = bpf_ktime_get_ns();
		if (now - target->window >= BUDGET_WINDOW) {
			target->window = now;
			target->spent = 0;
		}
		__sync_fetch_and_add(&target->spent, 1);
		if (target->spent <= target->budget)
			return 0;
		target->paused = 1;
	}
	__sync_fetch_and_add(&target->over_budget, 1);
	return 1;
}

static __always_inline void address_to(struct target *target, struct record *record)
{
	record->target = target->id;
	record->unused = 0;
}

