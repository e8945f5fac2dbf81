"""Replay jobs, which deliver past events at a limited rate."""
