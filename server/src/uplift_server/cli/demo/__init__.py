"""The demo: a server and two receivers on one machine. One receiver fails at first."""
