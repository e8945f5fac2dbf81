"""Delivery rules: outcomes, endpoint health, replays, tests."""
