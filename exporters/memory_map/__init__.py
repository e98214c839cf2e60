"""The memory map: one look at a process, and how it came to it, as a page that needs nothing but itself.

The map is drawn by scripts of our own; the areas of the treemap and the axes of charts are computed by d3, whose file
is in exporters/vendor/ as the npm registry has it.
"""
