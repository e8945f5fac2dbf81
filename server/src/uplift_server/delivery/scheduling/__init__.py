"""Schedules deliveries: dispatcher, lanes and held deliveries."""
