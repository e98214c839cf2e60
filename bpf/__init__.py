"""The BPF programs, the headers they need, and how they are placed, loaded and read."""
