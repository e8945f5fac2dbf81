"""Rules of events, event types and their schemas."""
