"""Benchmarks of Uplift Webhooks. To list them, run `bench/run --list`."""
