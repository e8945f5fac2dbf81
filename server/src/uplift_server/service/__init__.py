"""What people and programs may ask for: commands and queries, with the caller's rights checked."""
