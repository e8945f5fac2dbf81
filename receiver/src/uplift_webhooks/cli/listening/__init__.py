"""Parts of `uplift listen`: a stream of events from the server, forwarded to a local server one at a time."""
