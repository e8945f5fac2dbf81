"""Modules that `uplift` and `uplift-server` share: help, options, errors, output and API calls."""
