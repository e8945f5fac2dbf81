"""The dashboard: web pages for members of accounts and for operators."""
