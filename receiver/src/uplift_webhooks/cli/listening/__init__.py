"""The modules of `uplift listen`. They receive a stream of events and forward one event at a time to a local server."""
