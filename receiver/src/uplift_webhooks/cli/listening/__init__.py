"""What `uplift listen` does: a stream of events from the server, handed over to a local server one at a time."""
