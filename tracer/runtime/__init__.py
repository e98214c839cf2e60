"""Reading a live Go runtime from its process memory into a snapshot."""
