"""Loads Go libraries (-buildmode=c-shared) as a Python program does, and lets them do what lines of JSON ask for.

A line names a library, a function of it and the arguments: ["/tmp/a.so", "Hold", 100]. The answer is what it returned.
"""

import ctypes
import json
import sys

libraries = {}
for line in sys.stdin:
    path, name, *arguments = json.loads(line)
    library = libraries.setdefault(path, None) or ctypes.CDLL(path)
    libraries[path] = library
    function = getattr(library, name)
    function.restype = ctypes.c_ulonglong
    print(function(*arguments), flush=True)
