"""Several server processes on one database: membership, endpoint ownership and cache synchronization."""
