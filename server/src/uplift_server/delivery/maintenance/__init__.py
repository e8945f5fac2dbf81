"""Periodic jobs: retention, erasures, statistics, expiry of old secrets and certificates, and operational events."""
