#ifndef GOMEM_ONE_TARGET_H
#define GOMEM_ONE_TARGET_H
/* Whether the current task belongs to the one target of a module: TARGET_TGID in the PID namespace PIDNS_DEV/_INO, or
 * in the initial one where they are absent (bpf/program.py: class TargetIds). */
#include <linux/types.h>

static __always_inline int is_target(void)
{
#ifdef PIDNS_INO
	struct bpf_pidns_info ids = {};

	return !bpf_get_ns_current_pid_tgid(PIDNS_DEV, PIDNS_INO, &ids, sizeof(ids)) && ids.tgid == TARGET_TGID;
#else
	return bpf_get_current_pid_tgid() >> 32 == TARGET_TGID;
#endif
}
#endif
