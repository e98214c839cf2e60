"""The HTTP server of `gomem serve`: what it listens on, who is let in, and which address answers what."""
