"""A scoreboard: what people have asked in public about the memory of Go programs, and what `gomem why` answers.

`known.py` has the cases, as data. `python -m tests.cases` runs them, prints which are decided, and writes
docs/cases.md.
"""
