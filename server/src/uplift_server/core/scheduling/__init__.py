"""Rules of time and order: retry schedule, circuit breaker, fair lanes."""
