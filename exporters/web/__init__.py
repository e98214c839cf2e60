"""The HTTP side of `gomem serve`: endpoints, their protection, and pages for people."""
