"""The difference of two reports: what grew, who holds it, and what is not explained. Pure."""
