"""Rules of event types, their schemas and the events themselves."""
