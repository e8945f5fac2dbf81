"""Several server processes on one database: how they know of each other, and which does what."""
