"""The command line for operators, `uplift-server`."""
