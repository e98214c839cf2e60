"""Memory of C in a process that runs Go: each range proven by what stands in it."""
