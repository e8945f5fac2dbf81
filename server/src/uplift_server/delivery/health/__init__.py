"""Monitors endpoints: warns, disables and recovers them."""
