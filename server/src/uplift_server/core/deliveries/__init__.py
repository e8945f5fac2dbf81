"""Rules of deliveries after the first attempt: outcomes, health, replays, tests."""
