/* Forced in by bcc before everything else. Our programs touch no kernel struct, so no configuration matters;
 * bcc only insists that the kernel has bpf(2). */
#define CONFIG_BPF_SYSCALL 1
