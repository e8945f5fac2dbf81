"""Shared parts of the commands `uplift` and `uplift-server`: help, options, errors, output, and API calls."""
