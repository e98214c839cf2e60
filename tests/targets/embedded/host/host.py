"""Loads Go libraries (-buildmode=c-shared) as a Python program does, and lets them do what lines of JSON ask for.

A line names a library, a function of it and the arguments: ["/tmp/a.so", "Hold", 100]. The answer is what it returned.
"""

import ctypes
import json
import sys

libraries: dict[str, ctypes.CDLL] = {}
for line in sys.stdin:
    path, name, *arguments = json.loads(line)
    if path not in libraries:
        libraries[path] = ctypes.CDLL(path)
    function = getattr(libraries[path], name)
    function.restype = ctypes.c_ulonglong
    print(function(*arguments), flush=True)
