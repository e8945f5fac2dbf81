"""Rules for deliveries: outcomes, endpoint health, replays and test events."""
