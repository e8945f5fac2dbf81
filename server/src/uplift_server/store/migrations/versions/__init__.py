"""Schema migrations, one module for each revision. Each module name begins with the revision number."""
