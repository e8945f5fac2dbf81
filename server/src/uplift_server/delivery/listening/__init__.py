"""Live streams of events to developers' machines."""
