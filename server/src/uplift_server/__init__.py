"""Uplift Webhooks: the server that accepts events, signs them and delivers them to subscribed endpoints."""

__version__ = "0.1.2"
