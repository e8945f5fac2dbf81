"""Alembic environment: runs the migrations in the transaction of the given connection."""

from alembic import context

from uplift_server.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
