"""Live streams to developers and to pages."""
