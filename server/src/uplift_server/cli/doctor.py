"""The command `uplift-server doctor`, which finds problems and shows how to fix them."""

from dataclasses import asdict
from typing import Final

import typer
from rich.text import Text

from uplift_server.cli.session import Session, command
from uplift_server.core.operations.findings import Finding
from uplift_webhooks.cli.kit.errors import CliError
from uplift_webhooks.cli.kit.output import Output, printable

_STYLES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the `doctor` command to the program."""
    command(app, "doctor", examples=("uplift-server doctor", "uplift-server doctor --json"))(doctor)


def doctor(session: Session) -> None:
    """Check the settings, database, backups, keys, disk, network, email, single sign-on and clock.

    The command shows how to fix each problem. The command does not change anything or send email. The command also
    finds settings that still have an example value. On SQLite, the command warns if the newest copy in the directory
    `backups` next to the database is older than 2 days. On PostgreSQL, the command checks the connection's encryption,
    the database's clock and durability settings, free connections, dead rows, and the running API servers and workers.
    With NATS, the command checks each NATS server, and the event stream's replicas and size. If a check fails, the exit
    code is 1.
    """
    # Import here because the checks load the store, which slows down `--help`.
    from uplift_server.cli.checks import examine  # noqa: PLC0415

    findings: list[Finding] = []
    for finding in examine(session):
        findings.append(finding)
        _print(session.output, finding)
    failed = sum(each.result == "fail" for each in findings)
    warned = sum(each.result == "warn" for each in findings)
    if failed:
        raise CliError(
            f"{failed} of {len(findings)} checks failed",
            "fix each failed check as shown, then run `uplift-server doctor` again",
        )
    session.output.note(f"{len(findings)} checks, {warned or 'no'} warning{'s' * (warned != 1)}.")


def _print(output: Output, finding: Finding) -> None:
    if output.as_json:
        output.json(asdict(finding))
        return
    result = (f"{finding.result:<5}", _STYLES[finding.result])
    line = Text.assemble(result, f"{finding.check:<16}", printable(finding.text))
    if finding.remedy:
        line.append(f"\n     {'':<16}-> {printable(finding.remedy)}")
    output.print(line)
