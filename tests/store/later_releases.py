"""Two fictional later releases: the first only adds to the schema, and the second removes a column."""

import shutil
from pathlib import Path
from typing import Final

import pytest

import uplift_server.store
from uplift_server.store import schema_version
from uplift_server.store.postgres import schema_version as postgres_version

MIGRATIONS: Final = Path(uplift_server.store.__file__).parent / "migrations"
ADDS, REMOVES = "9001", "9002"
NEEDS: Final = "7.2.0"
_ADDING: Final = f'''
import sqlalchemy as sa
from alembic import op
revision, down_revision = "{ADDS}", "{schema_version.HEAD}"

def upgrade() -> None:
    for table in ("accounts", "endpoints", "events", "deliveries", "attempts", "event_types", "marks"):
        op.add_column(table, sa.Column("later", sa.Text()))
        op.add_column(table, sa.Column("later_counted", sa.Integer(), nullable=False, server_default="0"))
    op.create_table("later", sa.Column("seq", sa.BigInteger(), primary_key=True))
    op.create_index("attempts_by_outcome", "attempts", ["outcome"])
'''
_REMOVING: Final = f'''
from alembic import op
revision, down_revision = "{REMOVES}", "{ADDS}"
needs_release = "{NEEDS}"

def upgrade() -> None:
    op.drop_column("listen_answers", "redelivered")
'''


def pretend_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: str) -> None:
    """Pretend that the program is a later release with this revision."""
    migrations = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, migrations, dirs_exist_ok=True)
    for revision, text in ((ADDS, _ADDING), (REMOVES, _REMOVING)):
        if revision <= head:
            (migrations / "versions" / f"{revision}_later.py").write_text(text)
    monkeypatch.setattr(schema_version, "_MIGRATIONS", str(migrations))
    run = schema_version.run
    monkeypatch.setattr(schema_version, "run", lambda connection, revision=head: run(connection, revision))
    for module in (schema_version, postgres_version):
        monkeypatch.setattr(module, "HEAD", head)
