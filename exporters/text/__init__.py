"""Reports for people, on a terminal."""
