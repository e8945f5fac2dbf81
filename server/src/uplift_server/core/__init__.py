"""The rules, as functions of values: no clock, no randomness, no input or output, nothing but the standard library."""
