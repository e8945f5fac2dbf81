"""Operation rules: cluster, partitions, retention, statistics."""
