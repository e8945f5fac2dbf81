"""One module for each schema migration. The module names determine the order of the migrations."""
