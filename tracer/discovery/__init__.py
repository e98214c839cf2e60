"""Which Go processes there are, as they come and go."""
