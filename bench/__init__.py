"""Benchmarks of Uplift Webhooks, one command each: `bench/run --list`."""
