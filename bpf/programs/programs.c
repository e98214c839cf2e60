/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
 *
 * What the kernel runs at the memory syscalls of one or many targets and at the probed functions of their Go runtimes.
 *
 * Compiled by bcc (bpf/shared_program.py) with these constants:
 *   TARGETS           how many targets there can be at once
 *   UPROBES           how many uprobes each can have, a power of two
 *   TARGET_xxx        bpf/target_table.py: size of the dtype of a target and offsets in it
 *   PID_NAMESPACES    of how many PID namespaces they can be; absent where the tracer is in the initial one, which needs
 *                     no translation
 *   RING_PAGES        size of the ring buffer, a power of two
 *   WAKE_EVERY        wake the reader at every so many events of a CPU (a power of two); otherwise it comes by itself
 *   PENDING_CALLS     how many system calls of the target can be under way at once
 *   OPERANDS          with arguments that no cookie has room for
 *   SPANS             with the program for span events, which needs OPERANDS
 *   FUNCTION_FLAGS    with the programs for functions of the kernel; what to put the flags of one in the place of
 *   KPROBES           with those that run there by kprobes
 *   KIND_xxx          tracer/events/record.py: class EventKind
 *   EVENT_xxx         tracer/events/record.py: size of the dtype EVENT and offsets in it
 *   NR_xxx            the numbers of the memory system calls
 *   TRIAL_xxx, TRIALS, TS_COMPAT   bpf/compat_trial.py
 */
#define MAX_STACK 16
#define SYSCALL_ARGS 6
#define ROLE_ARGS 3
#define PROT_EXEC 4
#define MAP_ANONYMOUS 32

#include "arguments.h"

/* tracer/events/record.py: dtype EVENT. */
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

/* bpf/probes/call_functions.py has the same. */
#define COMPAT 128	/* beside a kind: of a 32-bit call */
#define AT_FUNCTION 256 /* and of one that is seen at a function of the kernel, */
#define AT_SINGLE 512	/* or at the tracepoint of its own */
#define SEEN_AT(kind) ((kind) & (AT_FUNCTION | AT_SINGLE))
#define KIND_OF(kind) ((kind) & 63)

struct pending {
	u64 entered; /* 0: its beginning was not seen */
	u32 kind;
	u32 tid;
	u64 registers; /* where the kernel has the caller's */
	u64 args[SYSCALL_ARGS];
};

/* bpf/program.py: class Counter. Uprobes count their hits from HITS on. */
enum { LOST_RING, LOST_PENDING, UNENDED, SYSCALL_HITS, COMPAT_HITS = SYSCALL_HITS + 63, HITS };

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_HASH(pending, u64, struct pending, PENDING_CALLS);

#include "targets.h"

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

/* Code of a file may be a plugin's, which wants probes before it runs (tracer/watch/plugins.py). */
static __always_inline int maps_code(struct event *event)
{
	return event->kind == KIND_MMAP && event->args[2] & PROT_EXEC && !(event->args[3] & MAP_ANONYMOUS);
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

/* The same of a 32-bit system call. Its numbers are those of arch/x86/entry/syscalls/syscall_32.tbl. */
static __always_inline u32 kind_of_compat(s64 number, u32 *arguments)
{
	switch (number) {
	case 90: case 192: *arguments = 6; return KIND_MMAP; /* mmap, mmap2 */
	case 91: *arguments = 2; return KIND_MUNMAP;
	case 163: *arguments = 5; return KIND_MREMAP;
	case 125: *arguments = 3; return KIND_MPROTECT;
	case 219: *arguments = 3; return KIND_MADVISE;
	case NR_PROCESS_MADVISE: *arguments = 5; return KIND_PROCESS_MADVISE;
	case 45: *arguments = 1; return KIND_BRK;
	}
	return 0;
}

/* Whether the current system call is a 32-bit one: of a 32-bit program, or by int 0x80 of any. Its numbers and
 * registers are others; neither the number nor the registers tell. The kernel keeps it in the status of struct
 * thread_info, with which struct task_struct begins (arch/x86/include/asm/thread_info.h). Where there, bpf/compat_trial.py
 * finds out; 0: that is not known, and no call is taken for a 32-bit one. */
BPF_ARRAY(thread_status_at, u32, 1);

static __always_inline int is_compat(void)
{
	u32 status = 0, *at;
	int key = 0;

	at = thread_status_at.lookup(&key);
	if (!at || !*at)
		return 0;
	bpf_probe_read_kernel(&status, sizeof(status), (void *)(bpf_get_current_task() + *at));
	return status & TS_COMPAT;
}

/* How struct task_struct began at each try of a child of ours: the 64-bit ones, and then the 32-bit ones. */
struct beginning {
	u8 bytes[TRIAL_BYTES];
};
BPF_ARRAY(trials, struct beginning, 2 * TRIALS);

/* What the child has in the registers of the first two arguments, by which it is known in any PID namespace. */
struct marks {
	u32 first, second;
};
BPF_ARRAY(trial_marks, struct marks, 1);

#define GETPID_64 39
#define GETPID_32 20

/* Raw tracepoint sys_enter, while the child runs: it calls getpid both ways, with its marks and which try it is. */
int on_trial(struct bpf_raw_tracepoint_args *ctx)
{
	s64 number = ctx->args[1];
	int compat = number == GETPID_32, which = 0;
	struct beginning *beginning;
	struct pt_regs regs;
	struct marks *marks;

	if (!compat && number != GETPID_64)
		return 0;
	if (bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]))
		return 0;
	marks = trial_marks.lookup(&which);
	if (!marks || (compat ? regs.bx : regs.di) != marks->first || (compat ? regs.cx : regs.si) != marks->second)
		return 0;
	which = (regs.dx & (TRIALS - 1)) + (compat ? TRIALS : 0);
	beginning = trials.lookup(&which);
	if (beginning)
		bpf_probe_read_kernel(beginning, sizeof(*beginning), (void *)bpf_get_current_task());
	return 0;
}

/* mmap of 1991 has its arguments in memory. */
static __always_inline void read_old_mmap(struct pending *call)
{
	u32 words[SYSCALL_ARGS] = {}, i;

	read_user(words, sizeof(words), (void *)call->args[0]);
#pragma unroll
	for (i = 0; i < SYSCALL_ARGS; i++)
		call->args[i] = words[i];
}

#define OLD_MMAP 90
#define MMAP2 192

static __always_inline void read_compat_arguments(struct pending *call, s64 number, struct pt_regs *regs)
{
	call->args[0] = (u32)regs->bx;
	call->args[1] = (u32)regs->cx;
	call->args[2] = (u32)regs->dx;
	call->args[3] = (u32)regs->si;
	call->args[4] = (u32)regs->di;
	call->args[5] = (u32)regs->bp;
	if (number == OLD_MMAP)
		read_old_mmap(call);
	if (number == MMAP2)
		call->args[5] <<= 12;
}

/* Keep the arguments of a call, whose kind and thread are known, until it ends. */
static __always_inline int remember(struct target *target, struct pending *call, u32 arguments, s64 number,
				    struct pt_regs *regs)
{
	u64 key = bpf_get_current_pid_tgid();
	u32 i;

	if (call->kind & COMPAT) {
		count(target, COMPAT_HITS);
		read_compat_arguments(call, number, regs);
	} else {
		call->args[0] = regs->di;
		call->args[1] = regs->si;
		call->args[2] = regs->dx;
		call->args[3] = regs->r10;
		call->args[4] = regs->r8;
		call->args[5] = regs->r9;
	}
#pragma unroll
	for (i = 0; i < SYSCALL_ARGS; i++)
		if (i >= arguments)
			call->args[i] = 0;
	if (!pending.insert(&key, call)) {
		mark_under_way(key, 1);
		return 0;
	}
	count_unended(target, key, call->kind);
	if (pending.update(&key, call)) /* in the place of one that was never seen to end */
		count(target, LOST_PENDING);
	return 0;
}

static __always_inline int call_begins(s64 number, struct pt_regs *registers, u32 seen_at)
{
	struct pending call = {};
	struct target *target = NULL;
	struct pt_regs regs;
	u32 arguments = 0, compat_arguments = 0, compat_kind;

	call.kind = kind_of(number, &arguments);
	compat_kind = kind_of_compat(number, &compat_arguments);
	if (!call.kind && !compat_kind)
		return 0;
	call.tid = target_thread(&target);
	if (!call.tid)
		return 0;
	if (is_compat()) {
		call.kind = compat_kind ? compat_kind | COMPAT : 0;
		arguments = compat_arguments;
	}
	if (!call.kind || is_paused(target, SYSCALL_HITS + KIND_OF(call.kind)))
		return 0;
	if (bpf_probe_read_kernel(&regs, sizeof(regs), registers))
		return 0;
	call.kind |= seen_at;
	call.registers = (u64)registers;
	call.entered = bpf_ktime_get_ns();
	return remember(target, &call, arguments, number, &regs);
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

	/* Unrolled, it takes longer to compile, and the kernel longer to verify. */
#pragma clang loop unroll(disable)
	for (i = 1; i < MAX_STACK; i++) {
		if (!frame || found >= most || read_user(&here, sizeof(here), (void *)frame))
			break;
		event->stack[found++ & (MAX_STACK - 1)] = here.address;
		frame = here.next;
	}
	return found;
}

/* Whether the system call that ends is of another kind than the one that is taken to be under way: whose end was missed. */
static __always_inline int is_another(struct pending *call, struct pt_regs *registers)
{
	u32 kind, arguments;
	s64 number = -1;

	bpf_probe_read_kernel(&number, sizeof(number), &registers->orig_ax);
	kind = call->kind & COMPAT ? kind_of_compat(number, &arguments) : kind_of(number, &arguments);
	return kind != KIND_OF(call->kind);
}

/* `any`: it may be the end of any system call. */
static __always_inline int call_ends(void *ctx, s64 result, int any)
{
	u64 key = bpf_get_current_pid_tgid(), ip = 0, sp = 0, bp = 0;
	struct target *target = NULL;
	struct pt_regs *registers;
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
	if (any && is_another(call, (struct pt_regs *)call->registers)) {
		count_unended(target, key, call->kind);
		forget_call(&key);
		return 0;
	}
	count(target, SYSCALL_HITS + KIND_OF(call->kind));
	event = new_event(target, call->tid, KIND_OF(call->kind));
	if (event) {
		event->time = bpf_ktime_get_ns();
		event->entered = call->entered;
		__builtin_memcpy(event->args, call->args, sizeof(event->args));
		event->result = result;
		registers = (struct pt_regs *)call->registers;
		bpf_probe_read_kernel(&ip, sizeof(ip), &registers->ip);
		bpf_probe_read_kernel(&sp, sizeof(sp), &registers->sp);
		bpf_probe_read_kernel(&bp, sizeof(bp), &registers->bp);
		event->stack[0] = ip;
		event->depth = 1;
		if (!(call->kind & COMPAT)) { /* whose stacks have words of 4 bytes */
			event->stack[1] = caller_of_frameless(ip, sp);
			event->depth = walk(event, event->stack[1] ? 2 : 1, bp, MAX_STACK);
		}
		submit_and_wake(event, maps_code(event));
	}
	forget_call(&key);
	return 0;
}

/* Raw tracepoints sys_enter (registers, number) and sys_exit (registers, result). They see every system call of the
 * machine, so each first asks the cheapest question that ends most of them. */
int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return call_begins(ctx->args[1], (struct pt_regs *)ctx->args[0], 0);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	return call_ends(ctx, ctx->args[1], 1);
}

/* Raw tracepoint sys_enter beside the tracepoints of single system calls, which leave 32-bit ones out
 * (bpf/compat_watch.py). */
int on_compat_enter(struct bpf_raw_tracepoint_args *ctx)
{
	u32 arguments;

	if (!kind_of_compat(ctx->args[1], &arguments) || !is_compat())
		return 0;
	return call_begins(ctx->args[1], (struct pt_regs *)ctx->args[0], 0);
}

/* Tracepoints of single system calls (bpf/probes/call_tracepoints.py): what they have in common. */
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
	return call_begins(ctx->number, user_registers(), AT_SINGLE);
}

int on_call_exit(struct call_tracepoint *ctx)
{
	return call_ends(ctx, ctx->result, 0);
}

/* Functions of the kernel that are the memory system calls: one for 64-bit calls, and one for 32-bit ones, each with the
 * caller's registers for its only argument (bpf/probes/call_functions.py). The kernel does not run a program that it
 * interrupted on this CPU, and has room for so many return probes only, so that a call's beginning or end may be missed;
 * see count_unended. */
static __always_inline int function_begins(void *argument, u32 flags, int seen)
{
	struct pending call = {};
	struct target *target = NULL;
	struct pt_regs regs, *registers;
	u32 arguments = 0;
	s64 number;

	call.tid = target_thread(&target);
	/* To some kernels (5.10) the argument of some of these functions is a pointer to they know not what, which the
	 * program itself may not read. */
	if (!call.tid || bpf_probe_read_kernel(&registers, sizeof(registers), argument) ||
	    bpf_probe_read_kernel(&regs, sizeof(regs), registers))
		return 0;
	number = regs.orig_ax;
	call.kind = flags & COMPAT ? kind_of_compat(number, &arguments) : kind_of(number, &arguments);
	if (!call.kind || (seen ? is_paused(target, SYSCALL_HITS + KIND_OF(call.kind)) : target->paused))
		return 0;
	call.kind |= flags;
	call.registers = (u64)registers;
	call.entered = seen ? bpf_ktime_get_ns() : 0;
	return remember(target, &call, arguments, number, &regs);
}

#ifdef FUNCTION_FLAGS
/* Each function has a program of its own: for which kind of calls, bpf/loading.py puts in here. */
static __always_inline u32 flags_of_function(void)
{
	u64 flags;

	asm volatile("%0 = %1" : "=r"(flags) : "i"(FUNCTION_FLAGS));
	return flags;
}

int on_function_enter(struct bpf_raw_tracepoint_args *ctx)
{
	return function_begins(ctx, flags_of_function(), 1);
}

/* Of a call whose beginning was not seen there is all but the time when it began. */
int on_function_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 key = bpf_get_current_pid_tgid();

	if (!may_be_under_way(key) || !pending.lookup(&key))
		function_begins(ctx, flags_of_function(), 0);
	return call_ends(ctx, ctx->args[1], 0);
}
#endif

#ifdef KPROBES
/* The same by kprobes, at which the registers are the kernel's own, and by return probes, which know the result only. */
int on_native_kprobe(struct pt_regs *ctx)
{
	return function_begins(&ctx->di, AT_FUNCTION, 1);
}

int on_compat_kprobe(struct pt_regs *ctx)
{
	return function_begins(&ctx->di, AT_FUNCTION | COMPAT, 1);
}

int on_kretprobe(struct pt_regs *ctx)
{
	return call_ends(ctx, ctx->ax, 0);
}
#endif

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

/* Of the thread-group leader only. The reader (bpf/target_events.py) holds it back until the whole process is gone. */
int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct target *target = NULL;
	u32 tid = exiting_leader(&target);

	return tid ? process_event(target, tid, KIND_EXIT) : 0;
}

/* In the place of on_exit since Linux 6.16, where sched_process_exit says whether the thread was the last. */
int on_exit_of_group(struct bpf_raw_tracepoint_args *ctx)
{
	u64 call = bpf_get_current_pid_tgid();
	struct target *target = NULL;
	u32 key;

	if (!target_thread(&target))
		return 0;
	count_unended(target, call, AT_FUNCTION);
	forget_call(&call);
	if (!(ctx->args[1] & 255))
		return 0;
	key = target->key;
	slots.delete(&key);
	return process_event(target, TGID_OF(key), KIND_EXIT);
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
	cookie = attach_cookie(ctx);
	index = cookie & (UPROBES - 1);
	flags = cookie >> 24 & 15;
	if (goes_to_morestack(ctx, cookie))
		return 0;
	count(target, HITS + index);
	event = new_event(target, tid, cookie >> 8 & 255);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	return_slot = return_slot_of(ctx, cookie);
#pragma unroll
	for (i = 0; i < ROLE_ARGS; i++)
		event->args[i] = argument_of(ctx, cookie, i);
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

#ifdef SPANS
/* A uprobe on a path that is not rare (bpf/governor.py): with more arguments than a cookie has room for, and without a
 * stack, which is most of what a hit costs. Its cookie has the counter, the kind and the flags only. */
int on_span_uprobe(struct pt_regs *ctx)
{
	u64 cookie = attach_cookie(ctx);
	int index = cookie & (UPROBES - 1);
	struct target *target = NULL;
	struct operands *wanted;
	struct event *event;
	u32 tid;

	if (goes_to_morestack(ctx, cookie))
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
