"""Alembic environment: runs the migrations in the given connection's transaction."""

from alembic import context

from uplift_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
