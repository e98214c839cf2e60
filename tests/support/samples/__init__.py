"""Reports, views, events and files that are made word by word, for tests without a process."""
