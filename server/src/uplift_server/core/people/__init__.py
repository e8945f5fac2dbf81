"""Rules of accounts, members and their email."""
