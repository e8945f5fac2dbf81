"""Rules for deliveries: outcomes, endpoint health, replays and tests."""
