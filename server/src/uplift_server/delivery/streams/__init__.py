"""The event stream: NATS JetStream in front of the database."""
