"""One module for each migration of the schema. The names of the modules give the order."""
