"""Shared parts of `uplift` and `uplift-server`: help, options, errors, output and API calls."""
