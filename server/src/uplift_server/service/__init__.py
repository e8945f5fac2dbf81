"""Use cases: commands and queries that check the permissions of the caller."""
