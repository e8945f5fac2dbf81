"""Periodic work: retention, statistics, expiry of old secrets."""
