"""The engine: accepts events, leases due deliveries, sends them, settles what came back."""
