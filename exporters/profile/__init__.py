"""What a profile says: values by function and by call stack, and what differs between two profiles."""
