"""Decides which delivery is sent next: dispatcher, lanes, held deliveries."""
