"""The operators' command line, `uplift-server`."""
