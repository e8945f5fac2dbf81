"""Rules of operation: processes, partitions, retention, statistics."""
