"""Periodic jobs: retention, erasures, statistics, secret expiry, certificate warnings, and operational events."""
