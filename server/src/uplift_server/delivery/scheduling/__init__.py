"""Scheduling of deliveries: dispatcher, lanes and held deliveries."""
