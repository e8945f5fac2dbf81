"""Use cases: commands and queries that check the caller's permissions."""
