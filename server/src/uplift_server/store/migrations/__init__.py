"""The migrations of the schema, for both databases."""
