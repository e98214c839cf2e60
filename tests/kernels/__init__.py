"""gomem on other kernels: Debian's, in virtual machines that see this machine's files and run chosen tests.

`python -m tests.kernels [KERNEL...]` (`make test-kernels`) fetches the kernels, boots each, and writes what came of it
to docs/support.md.
"""
