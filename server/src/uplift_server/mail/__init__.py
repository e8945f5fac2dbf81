"""Notices to people, by SMTP."""
