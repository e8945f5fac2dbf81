"""Clients to compare, each a process that posts to one receiver as fast as possible."""
