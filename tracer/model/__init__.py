"""What events mean: pure functions of event batches, with no I/O and no clock."""
