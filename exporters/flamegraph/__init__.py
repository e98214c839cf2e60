"""A profile as an interactive flame graph: one page that needs nothing but itself.

It is drawn by d3-flame-graph and d3, whose files are in exporters/vendor/ as the npm registry has them.
"""
