"""How a process ended: its wait status, the OOM killer, what failed just before."""
