"""HTTP clients that a benchmark compares.

Each client is a process that sends requests to one receiver as fast as possible.
"""
