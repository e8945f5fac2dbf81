"""What is remembered: one contract, one schema, and the engines behind it."""
