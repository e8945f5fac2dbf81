"""Clients to compare with each other, each a process that posts to one receiver as fast as it can."""
