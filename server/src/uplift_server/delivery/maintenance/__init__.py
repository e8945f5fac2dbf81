"""Periodic work: retention, erasures, statistics, expiry of old secrets, operational events."""
