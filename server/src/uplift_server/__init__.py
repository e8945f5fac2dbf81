"""Uplift Webhooks: the server that accepts events, signs them and delivers them to every endpoint that wants them."""

__version__ = "0.1.2"
