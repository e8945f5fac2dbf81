"""Sends deliveries, and stores the outcomes of their attempts."""
