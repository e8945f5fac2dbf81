"""The pages, one module a noun, each with the routes it serves."""
