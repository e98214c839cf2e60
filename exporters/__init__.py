"""What turns a report into something people or machines read."""
