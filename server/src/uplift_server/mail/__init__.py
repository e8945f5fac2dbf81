"""Emails to people over SMTP."""
