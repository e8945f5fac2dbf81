"""Commands that pages show can be given as they stand: the programs know each of them, with its options."""

import re
import shlex
from html import unescape

import pytest
import typer.main
from tests.dashboard import visitors
from tests.dashboard.owned import Owned
from tests.dashboard.routes import filled
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.cli.main import app as operators_program
from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door
from uplift_webhooks.cli.main import app as integrators_program

PROGRAMS = {
    "uplift-server": typer.main.get_command(operators_program),
    "uplift": typer.main.get_command(integrators_program),
}
_CODE = re.compile(r"<pre[^>]*><code>([^<]*)</code>")


def parse(line: str) -> None:
    """Let the program read a command, and do nothing. Raises what it says of one it does not know."""
    name, *rest = shlex.split(line, comments=True)
    command = PROGRAMS[name]
    context = typer.Context(command, info_name=name)
    while rest and (known := getattr(command, "get_command", lambda *_: None)(context, rest[0])) is not None:
        command, rest = known, rest[1:]
    if hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        raise LookupError(f"No such command: {rest[0]}")
    command.make_context(name, rest)


def commands(html: str) -> set[str]:
    """The lines to copy that begin with one of the programs, or curl."""
    lines = [line for code in _CODE.findall(html) for line in unescape(code).splitlines()]
    return {line for line in lines if line.partition(" ")[0] in {*PROGRAMS, "curl"} and " " in line}


@pytest.mark.parametrize("line", ["uplift endpoints update x", "uplift-server key create name", "uplift nothing"])
def test_a_command_that_is_none_is_found(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|unexpected"):
        parse(line)


def test_every_command_on_a_page_is_known(server: Server, shared_receiver: Receiver) -> None:
    owned = Owned(server, shared_receiver.url("/commanded"))
    owner, operator = owned.member(), visitors.operator(server)
    shown: set[str] = set()
    for page in PAGES:
        if page.method == "GET" and page.door in {Door.ACCOUNT, Door.OPERATOR} and not page.path.endswith("/live"):
            guest = operator if page.door is Door.OPERATOR else owner
            shown |= commands(guest.get(filled(page, owned.ids)).html)

    called = {line for line in shown if line.startswith("curl ")}
    assert called
    # Braces and brackets in a URL are part of it.
    assert all("--globoff" in shlex.split(line.removesuffix("\\")) for line in called)
    shown -= called
    assert len(shown) > 30
    wrong = []
    for line in sorted(shown):
        try:
            parse(line)
        except Exception as error:
            wrong.append(f"{line}: {error}")
    assert not wrong, "\n".join(wrong)
