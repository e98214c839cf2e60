"""Events: the one record that every source yields, the contract of a source, and the sources that need no BPF."""
