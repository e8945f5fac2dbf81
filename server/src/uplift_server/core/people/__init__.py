"""Rules of accounts, members and their emails."""
