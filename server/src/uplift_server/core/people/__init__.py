"""Rules for accounts, members and their emails."""
