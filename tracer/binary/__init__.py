"""What an executable file says: ELF, build info, pclntab, and the code of runtime functions."""
