"""Replay jobs and their throttle."""
