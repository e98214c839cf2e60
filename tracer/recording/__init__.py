"""Recordings: a watch of a process kept in a file, from which the report of any of its moments can be made.

The layers of the format, each in its own module:

- `frames`: the file: a header, then checksummed, compressed frames, one after the other.
- `columns`: what is in a frame: one JSON object, and arrays beside it.
- `event_codec`, `snapshot_codec`: event batches and looks in that form.
- `contents`: the kinds of frames, and what each says.
- `recorder` writes a recording while a process is watched, its events by `event_writer`; `reader` reads one.
"""
