"""`uplift reconcile`: print every event in the account after a stored position, to find missed events."""

from pathlib import Path
from typing import Annotated, Final

import typer

from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.kit.inputs import After
from uplift_webhooks.cli.kit.rejections import options
from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command

_COLUMNS: Final = [Column("id", "EVENT"), Column("type", "TYPE", gives=True), Column("created_at", "CREATED")]
_CURSOR_CHARACTERS_MAX: Final = 1000


def register(app: typer.Typer) -> None:
    """Add the `reconcile` command to the program."""
    command(
        app,
        "reconcile",
        examples=(
            "uplift reconcile --after 2026-01-31T08:00:00Z",
            "uplift reconcile --cursor-file uplift.cursor --json > missed.jsonl",
            "uplift reconcile --type 'movement.*' --cursor-file uplift.cursor",
        ),
    )(reconcile)


def reconcile(
    session: Session,
    event_type: Annotated[
        list[str] | None,
        typer.Option(
            "--type", metavar="TYPE", help="Only events of this type or pattern, such as movement.*. Repeatable."
        ),
    ] = None,
    after: After = None,
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            "--cursor-file",
            metavar="FILE",
            help="File that stores the position. The command continues after the stored position and updates the file.",
        ),
    ] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", metavar="N", min=1, max=100_000, help="Stop at the end of the page that contains the Nth event."
        ),
    ] = 1000,
) -> None:
    """List every event in the account, oldest first, whether or not it was delivered.

    With --cursor-file, each run continues after the last event of the previous run. To see the data of an event: uplift
    events ID.
    """
    cursor = None if cursor_file is None else _read(cursor_file)
    with options(cursor="--cursor-file", created_after="--after", type="--type", order="the order"):
        found, cursor = session.calls().reconcile(cursor, event_type, after, at_least=limit)
    session.output.rows(found, _COLUMNS, empty="No further events.")
    if cursor_file is not None and cursor is not None:
        _write(cursor_file, cursor)
    if len(found) >= limit:
        session.output.note("There may be more events. To continue, repeat the command with --cursor-file.")


def _read(file: Path) -> str | None:
    """Return the position that the file contains, or None if the file does not exist.

    Raises CliError if the file is not valid.
    """
    try:
        with file.open(encoding="ascii") as opened:
            return opened.read(_CURSOR_CHARACTERS_MAX).strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(
            f"{file} is not a readable cursor file",
            "use the cursor file of an earlier run, or the path of a new file",
            ExitCode.USAGE,
        ) from error


def _write(file: Path, cursor: str) -> None:
    draft = file.with_name(f"{file.name}.new")
    try:
        draft.write_text(f"{cursor}\n", encoding="ascii")
        draft.replace(file)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}", "use a directory that you can write to") from error
