"""Rules of keys, permissions and signatures."""
