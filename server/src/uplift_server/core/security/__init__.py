"""Rules for keys, permissions and signatures."""
