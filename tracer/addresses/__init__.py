"""Sets of addresses, and maps over addresses."""
