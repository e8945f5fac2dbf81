"""Alembic environment: runs the migrations on the given connection, within its transaction."""

from alembic import context

from uplift_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
