"""The engine: accepts events, leases due deliveries, sends them, and stores their outcomes."""
