"""The demo: a server and receivers on one machine. Some receivers fail, to show retries and alerts."""
