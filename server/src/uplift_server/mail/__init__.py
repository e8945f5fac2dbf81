"""Sends emails to people over SMTP."""
