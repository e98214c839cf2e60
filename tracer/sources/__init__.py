"""Event sources that need no BPF."""
