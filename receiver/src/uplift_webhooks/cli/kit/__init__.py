"""What the commands `uplift` and `uplift-server` share: help, options, errors, output, and calls of the API."""
