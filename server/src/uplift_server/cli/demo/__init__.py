"""The demo: a server and receivers on one machine. Some receivers fail, so that there is something to see."""
