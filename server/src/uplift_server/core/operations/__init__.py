"""Rules for operating the server: cluster, partitions, retention and statistics."""
