"""Sending of deliveries, and storage of the outcomes of their attempts."""
