"""The target and its company: a process held by its identity, read, launched, tried from apart."""
