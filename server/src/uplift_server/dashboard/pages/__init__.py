"""The pages: one module per noun, with its routes."""
