/* How many system calls a process makes. Compiled with -DTGID=process. */
#include <uapi/linux/ptrace.h>
#include <linux/types.h>

BPF_ARRAY(calls, u64, 1);

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	int key = 0;
	u64 *value;

	if (bpf_get_current_pid_tgid() >> 32 != TGID)
		return 0;
	value = calls.lookup(&key);
	if (value)
		__sync_fetch_and_add(value, 1);
	return 0;
}
