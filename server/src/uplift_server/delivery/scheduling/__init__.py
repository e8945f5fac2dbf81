"""Schedules deliveries: leases due deliveries, queues them in lanes, and holds and releases deliveries."""
