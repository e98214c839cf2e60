"""Profiles of a process, read from outside: who holds or allocates memory, by call stack."""
