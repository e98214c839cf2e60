"""`gomem top`: all processes that are followed, live, on a terminal.

Rows, groups, histories and drawings are pure: they know views and reports. The app only shows what they give.
"""
