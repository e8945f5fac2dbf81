"""Scheduling rules: retry schedule, circuit breaker, fair lanes."""
