"""The dashboard: pages for members of accounts and for operators."""
