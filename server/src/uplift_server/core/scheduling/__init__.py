"""Scheduling rules: the retry schedule, the circuit breaker, and the fair order of deliveries."""
