"""One run: takes settings and a target, loads on this machine, in shards or on a cluster, and fills
a report.
"""
