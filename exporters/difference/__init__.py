"""The difference of two reports as `gomem diff` shows it: a page of text, JSON, or one HTML file."""
