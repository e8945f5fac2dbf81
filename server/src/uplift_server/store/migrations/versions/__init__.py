"""One module for each migration of the schema. The names of the modules determine the order of the migrations."""
