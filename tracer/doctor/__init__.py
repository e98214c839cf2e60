"""What `gomem doctor` finds out: settings that are read, and what works because it was tried."""
