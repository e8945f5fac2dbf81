"""Rules for events, event types and their schemas."""
