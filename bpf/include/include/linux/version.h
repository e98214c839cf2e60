/* Kernels since 5.0 ignore the version that a program was built for. */
#define LINUX_VERSION_CODE 0x050800
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
