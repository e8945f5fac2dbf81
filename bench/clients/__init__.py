"""Clients to compare. Each is a process that posts to one receiver as fast as possible."""
