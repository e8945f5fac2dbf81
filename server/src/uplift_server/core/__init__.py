"""Domain rules as pure functions: no clock, no randomness, no I/O, and no imports beyond the standard library."""
