"""The dashboard: pages for the members of accounts, and the operators' console."""
