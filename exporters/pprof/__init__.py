"""Profiles in pprof's own format, for `go tool pprof` and everything else that reads it.

protobuf is imported when a file is written or read, by whoever imports `encode` or `decode` from their modules.
"""
