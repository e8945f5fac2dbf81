"""The dashboard: web pages for account members and operators."""
