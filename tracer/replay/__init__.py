"""Reports out of files: recordings of ours, and logs that strace or dtruss made."""
