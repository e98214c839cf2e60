/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the kernel runs at the target's memory syscalls and at the probed functions of its Go runtime.
 *
 * Compiled by bcc (bpf/program.py) with these constants:
 *   TARGET_TGID       the target's process id, in the PID namespace that is compared
 *   PIDNS_DEV/_INO    that namespace; both absent: the initial one, where no translation is needed
 *   MANY_TARGETS      how many targets there can be at once, in place of TARGET_TGID (bpf/shared_program.py); with
 *                     PID_NAMESPACES, of how many namespaces, in place of PIDNS_xxx
 *   RING_PAGES        size of the ring buffer, a power of two
 *   WAKE_EVERY        wake the reader at every so many events of a CPU (a power of two); otherwise it comes by itself
 *   PENDING_CALLS     how many system calls of the target can be under way at once
 *   OPERANDS          with arguments that no cookie has room for, and the program for span events
 *   KIND_xxx          tracer/events.py: class Kind
 *   EVENT_xxx         tracer/events.py: size of the dtype EVENT and offsets in it
 *   NR_xxx            the numbers of the memory system calls
 */
#include <uapi/linux/ptrace.h>
#include <linux/types.h>

#define MAX_STACK 16
#define SYSCALL_ARGS 6
#define ROLE_ARGS 3
#define PROT_EXEC 4
#define MAP_ANONYMOUS 32

/* By its own name, bcc reads all of /proc/kallsyms at each place that calls it, to learn whether the kernel has it:
 * 0.1 s each. One that has ring buffers does. */
static long (*read_user)(void *to, u32 size, const void *from) = (void *)BPF_FUNC_probe_read_user;

/* tracer/events.py: dtype EVENT. */
struct event {
	u64 time;
	u64 entered;
	u32 tid;
	u16 kind;
	u16 depth;
	u64 args[SYSCALL_ARGS];
	s64 result;
	u64 stack[MAX_STACK];
};

_Static_assert(sizeof(struct event) == EVENT_BYTES, "struct event is not the dtype EVENT");
_Static_assert(__builtin_offsetof(struct event, args) == EVENT_ARGS_AT, "EVENT.args lies elsewhere");
_Static_assert(__builtin_offsetof(struct event, stack) == EVENT_STACK_AT, "EVENT.stack lies elsewhere");

struct pending {
	u64 entered;
	u32 kind;
	u32 tid;
	u64 args[SYSCALL_ARGS];
};

/* bpf/program.py: class Counter. Uprobes count their hits from HITS on. */
enum { LOST_RING, LOST_PENDING, SUBMITTED, SYSCALL_HITS, HITS = SYSCALL_HITS + 64 };

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_HASH(pending, u64, struct pending, PENDING_CALLS);

#ifdef MANY_TARGETS
#include "shared_targets.h"
#else
#define UPROBES 256
BPF_PERCPU_ARRAY(counters, u64, HITS + UPROBES);

struct record {
	struct event event;
};

struct target; /* There is but one, and nothing to know of it. */

/* Set when all is over: taking the programs off takes the kernel so long that a target could fill the ring. */
BPF_ARRAY(silence, u32, 1);

static __always_inline int is_silent(void)
{
	int key = 0;
	u32 *silent = silence.lookup(&key);

	return silent && *silent;
}

static __always_inline u64 count(struct target *target, u32 which)
{
	int key = which;
	u64 *value = counters.lookup(&key);

	return value ? ++*value : 0;
}

static __always_inline u64 count_submitted(void)
{
	return count(NULL, SUBMITTED);
}

/* The thread id of the current task if it belongs to the target, else 0. */
static __always_inline u32 target_thread(struct target **target)
{
#ifdef PIDNS_INO
	struct bpf_pidns_info ids = {};

	if (bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &ids, sizeof(ids)))
		return 0;
	return ids.tgid == TARGET_TGID && !is_silent() ? ids.pid : 0;
#else
	u64 ids = bpf_get_current_pid_tgid();

	return ids >> 32 == TARGET_TGID && !is_silent() ? (u32)ids : 0;
#endif
}

static __always_inline void forget_call(u64 *thread)
{
	pending.delete(thread);
}

/* What only many targets need. */
#define executing_thread(ctx, target) target_thread(target)
#define exiting_leader(target) (target_thread(target) == TARGET_TGID ? TARGET_TGID : 0)
#define is_paused(target, which) 0
#define is_over_budget(target, kind) 0
#define address_to(target, record)
#define mark_under_way(thread, change)
#ifdef PIDNS_INO
#define may_be_under_way(thread) 1
#else
#define may_be_under_way(thread) ((thread) >> 32 == TARGET_TGID)
#endif
#endif

/* Room for an event of a target, which is all zeros but for who and what; NULL when it is lost, and counted. */
static __always_inline struct event *new_event(struct target *target, u32 tid, u32 kind)
{
	struct record *record;
	struct event *event;

	if (is_over_budget(target, kind))
		return NULL;
	record = events.ringbuf_reserve(sizeof(struct record));
	if (!record) {
		count(target, LOST_RING);
		return NULL;
	}
	address_to(target, record);
	event = &record->event;
	__builtin_memset(event, 0, sizeof(*event));
	event->tid = tid;
	event->kind = kind;
	return event;
}

/* Waking the reader costs the target an interrupt, so most events leave it asleep until it comes by itself. */
static __always_inline void submit_and_wake(struct event *event, int urgent)
{
	int wanted = !(count_submitted() & (WAKE_EVERY - 1)) || urgent;

	events.ringbuf_submit(event, wanted ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP);
}

static __always_inline void submit(struct event *event)
{
	submit_and_wake(event, 0);
}

/* Code of a file may be a plugin's, which wants probes before it runs (tracer/plugins.py). */
static __always_inline int maps_code(struct event *event)
{
	return event->kind == KIND_MMAP && event->args[2] & PROT_EXEC && !(event->args[3] & MAP_ANONYMOUS);
}

static __always_inline u64 user_word(u64 address)
{
	u64 word = 0;

	read_user(&word, sizeof(word), (void *)address);
	return word;
}

/* The kind and number of arguments of a memory system call; a kind of 0 for all others. */
static __always_inline u32 kind_of(s64 number, u32 *arguments)
{
	switch (number) {
	case NR_MMAP: *arguments = 6; return KIND_MMAP;
	case NR_MUNMAP: *arguments = 2; return KIND_MUNMAP;
	case NR_MREMAP: *arguments = 5; return KIND_MREMAP;
	case NR_MPROTECT: *arguments = 3; return KIND_MPROTECT;
	case NR_MADVISE: *arguments = 3; return KIND_MADVISE;
	case NR_PROCESS_MADVISE: *arguments = 5; return KIND_PROCESS_MADVISE;
	case NR_BRK: *arguments = 1; return KIND_BRK;
	}
	return 0;
}

static __always_inline int call_begins(s64 number, struct pt_regs *registers)
{
	struct pending call = {};
	struct target *target = NULL;
	struct pt_regs regs;
	u64 key;
	u32 arguments = 0, i;

	call.kind = kind_of(number, &arguments);
	if (!call.kind)
		return 0;
	call.tid = target_thread(&target);
	if (!call.tid)
		return 0;
	if (is_paused(target, SYSCALL_HITS + call.kind))
		return 0;
	if (bpf_probe_read_kernel(&regs, sizeof(regs), registers))
		return 0;
	call.args[0] = regs.di;
	call.args[1] = regs.si;
	call.args[2] = regs.dx;
	call.args[3] = regs.r10;
	call.args[4] = regs.r8;
	call.args[5] = regs.r9;
#pragma unroll
	for (i = 0; i < SYSCALL_ARGS; i++)
		if (i >= arguments)
			call.args[i] = 0;
	call.entered = bpf_ktime_get_ns();
	key = bpf_get_current_pid_tgid();
	if (!pending.insert(&key, &call))
		mark_under_way(key, 1);
	else if (pending.update(&key, &call)) /* in the place of one that was never seen to end */
		count(target, LOST_PENDING);
	return 0;
}

/* The assembly functions that make system calls have no frame, so a walk of frame pointers leaves out their caller.
 * The word at the stack pointer is the return address into it, if a `call rel32` right before it leads to shortly
 * before the syscall instruction; anything else there is not believed. Returns 0 then. */
static __always_inline u64 caller_of_frameless(u64 ip, u64 sp)
{
	u64 caller = user_word(sp);
	u8 call[5] = {};
	s32 distance;

	if (read_user(call, sizeof(call), (void *)(caller - sizeof(call))) || call[0] != 0xe8)
		return 0;
	__builtin_memcpy(&distance, call + 1, sizeof(distance));
	return ip - (caller + distance) < 512 ? caller : 0;
}

/* Follow the frame pointers from `frame` on. bpf_get_stack does the same, but finds the end of a stack by a read that
 * fails, which takes a third of a hit, and from Linux 6.11 on it puts the caller in at some instructions. Adds what it
 * finds behind the first `found` entries of the stack, up to `most`, and returns how many there are then. */
static __always_inline u32 walk(struct event *event, u32 found, u64 frame, u32 most)
{
	struct {
		u64 next;
		u64 address;
	} here;
	u32 i;

#pragma unroll
	for (i = 1; i < MAX_STACK; i++) {
		if (!frame || found >= most || read_user(&here, sizeof(here), (void *)frame))
			break;
		event->stack[found++ & (MAX_STACK - 1)] = here.address;
		frame = here.next;
	}
	return found;
}

static __always_inline int call_ends(void *ctx, struct pt_regs *registers, s64 result)
{
	u64 key = bpf_get_current_pid_tgid(), ip = 0, sp = 0, bp = 0;
	struct target *target = NULL;
	struct pending *call;
	struct event *event;

	/* Only threads of targets are in the map; a cheaper test spares the others the look. */
	if (!may_be_under_way(key))
		return 0;
	call = pending.lookup(&key);
	if (!call)
		return 0;
	if (!target_thread(&target)) {
		forget_call(&key);
		return 0;
	}
	count(target, SYSCALL_HITS + (call->kind & 63));
	event = new_event(target, call->tid, call->kind);
	if (event) {
		event->time = bpf_ktime_get_ns();
		event->entered = call->entered;
		__builtin_memcpy(event->args, call->args, sizeof(event->args));
		event->result = result;
		bpf_probe_read_kernel(&ip, sizeof(ip), &registers->ip);
		bpf_probe_read_kernel(&sp, sizeof(sp), &registers->sp);
		bpf_probe_read_kernel(&bp, sizeof(bp), &registers->bp);
		event->stack[0] = ip;
		event->stack[1] = caller_of_frameless(ip, sp);
		event->depth = walk(event, event->stack[1] ? 2 : 1, bp, MAX_STACK);
		submit_and_wake(event, maps_code(event));
	}
	forget_call(&key);
	return 0;
}

/* Raw tracepoints sys_enter (registers, number) and sys_exit (registers, result). They see every system call of the
 * machine, so each first asks the cheapest question that ends most of them. */
int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return call_begins(ctx->args[1], (struct pt_regs *)ctx->args[0]);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return call_ends(ctx, (struct pt_regs *)ctx->args[0], ctx->args[1]);
}

/* Tracepoints of single system calls (bpf/call_tracepoints.py): what they have in common. */
struct call_tracepoint {
	u64 common;
	s32 number;
	u32 unused;
	s64 result; /* at the end of a call */
};

static __always_inline struct pt_regs *user_registers(void)
{
	return (struct pt_regs *)bpf_task_pt_regs((void *)bpf_get_current_task_btf());
}

int on_call_enter(struct call_tracepoint *ctx)
{
	return call_begins(ctx->number, user_registers());
}

int on_call_exit(struct call_tracepoint *ctx)
{
	return call_ends(ctx, user_registers(), ctx->result);
}

static __always_inline int process_event(struct target *target, u32 tid, u32 kind)
{
	struct event *event;

	count(target, SYSCALL_HITS + kind);
	event = new_event(target, tid, kind);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	submit_and_wake(event, 1);
	return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct target *target = NULL;
	u32 tid = executing_thread(ctx, &target);

	return tid ? process_event(target, tid, KIND_EXEC) : 0;
}

/* Of the thread-group leader only. The reader (bpf/source.py) holds it back until the whole process is gone. */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct target *target = NULL;
	u32 tid = exiting_leader(&target);

	return tid ? process_event(target, tid, KIND_EXIT) : 0;
}

#ifdef MANY_TARGETS
/* In the place of on_exit since Linux 6.16, where sched_process_exit says whether the thread was the last. */
int on_exit_of_group(struct bpf_raw_tracepoint_args *ctx)
{
	u64 call = bpf_get_current_pid_tgid();
	struct target *target = NULL;
	u32 key;

	if (!target_thread(&target))
		return 0;
	forget_call(&call);
	if (!(ctx->args[1] & 255))
		return 0;
	key = target->key;
	slots.delete(&key);
	return process_event(target, TGID_OF(key), KIND_EXIT);
}
#endif

/* The cookie of a uprobe says all there is to know of it; bpf/uprobes.py packs it. From the low bits up:
 * 8 counter, 8 kind, 8 return address offset / 8, 4 flags, then for each of three arguments 8 source and 4 shift. */
#define BRANCH_IF_MORESTACK 1
#define FEW_CALLERS 2
#define FEW 3
#define MORE_ARGUMENTS 4
#define SOURCE_STACK 64
#define FLAG_CF 1
#define FLAG_ZF 64

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

#ifdef OPERANDS
#include "operands.h"
#endif

int on_uprobe(struct pt_regs *ctx)
{
	struct target *target = NULL;
	u32 tid = target_thread(&target);
	struct event *event;
	u64 cookie, return_slot, frame;
	u32 i, flags;
	int index;

	if (!tid)
		return 0;
	cookie = bpf_get_attach_cookie(ctx);
	index = cookie & (UPROBES - 1);
	flags = cookie >> 24 & 15;
	/* Placed on the `jbe` of a stack check, the probe also sees the calls that go to morestack and come again. */
	if (flags & BRANCH_IF_MORESTACK && ctx->flags & (FLAG_CF | FLAG_ZF))
		return 0;
	count(target, HITS + index);
	event = new_event(target, tid, cookie >> 8 & 255);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	return_slot = ctx->sp + (cookie >> 16 & 255) * 8;
	cookie >>= 28;
#pragma unroll
	for (i = 0; i < ROLE_ARGS; i++) {
		event->args[i] = argument(ctx, return_slot, cookie & 255) << (cookie >> 8 & 15);
		cookie >>= 12;
	}
#ifdef OPERANDS
	if (flags & MORE_ARGUMENTS)
		read_operands(ctx, event, operands.lookup(&index));
#endif
	event->stack[0] = user_word(return_slot);
	/* Behind its prologue the function has a frame of its own, which leads to the same caller. */
	frame = ctx->bp;
	if (frame + sizeof(u64) == return_slot)
		frame = user_word(frame);
	event->depth = walk(event, 1, frame, flags & FEW_CALLERS ? FEW : MAX_STACK);
	submit(event);
	return 0;
}

#ifdef OPERANDS
/* A uprobe on a path that is not rare (bpf/governor.py): with more arguments than a cookie has room for, and without a
 * stack, which is most of what a hit costs. Its cookie has the counter, the kind and the flags only. */
int on_span_uprobe(struct pt_regs *ctx)
{
	u64 cookie = bpf_get_attach_cookie(ctx);
	int index = cookie & (UPROBES - 1);
	struct target *target = NULL;
	struct operands *wanted;
	struct event *event;
	u32 tid;

	if (cookie >> 24 & BRANCH_IF_MORESTACK && ctx->flags & (FLAG_CF | FLAG_ZF))
		return 0;
	tid = target_thread(&target);
	if (!tid)
		return 0;
	count(target, HITS + index);
	wanted = operands.lookup(&index);
	if (!wanted || !wanted->on)
		return 0;
	event = new_event(target, tid, cookie >> 8 & 255);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	read_operands(ctx, event, wanted);
	submit(event);
	return 0;
}
#endif
