"""Commands and API calls on pages: they are valid, and the visitor may use them."""

import re
import shlex
from html import unescape
from urllib.parse import urlsplit

import pytest
import typer.main
from tests.dashboard import visitors
from tests.dashboard.full_account import FullAccount
from tests.dashboard.routes import path_with_ids
from tests.e2e.harness import TYPE, Server, wait_for
from tests.e2e.receiving import Receiver

from uplift_server.cli.main import app as operators_program
from uplift_server.core.security.rights import RIGHTS_OF_ROLE, SCOPES_OF_ROLE, Right, Role
from uplift_server.core.security.scopes import Scope
from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door
from uplift_webhooks.cli.main import app as integrators_program

PROGRAMS = {
    "uplift-server": typer.main.get_command(operators_program),
    "uplift": typer.main.get_command(integrators_program),
}
_CODE = re.compile(r"<pre[^>]*><code>([^<]*)</code>")
GET_PAGES = [
    page
    for page in PAGES
    if page.method == "GET" and page.door in {Door.ACCOUNT, Door.OPERATOR} and not page.path.endswith("/live")
]


def parse(line: str) -> None:
    """Parse a command without running it. Raises an error if the command or one of its options is unknown."""
    name, *rest = shlex.split(line, comments=True)
    command = PROGRAMS[name]
    context = typer.Context(command, info_name=name)
    while rest and (known := getattr(command, "get_command", lambda *_: None)(context, rest[0])) is not None:
        command, rest = known, rest[1:]
    if hasattr(command, "get_command") and rest and not rest[0].startswith("-"):
        raise LookupError(f"No such command: {rest[0]}")
    command.make_context(name, rest)


def commands(html: str) -> set[str]:
    """Return the code lines whose first word is curl or one of PROGRAMS."""
    lines = [line for code in _CODE.findall(html) for line in unescape(code).splitlines()]
    return {line for line in lines if line.partition(" ")[0] in {*PROGRAMS, "curl"} and " " in line}


@pytest.mark.parametrize("line", ["uplift endpoints change x", "uplift-server keys create name", "uplift nothing"])
def test_unknown_commands_fail_to_parse(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|unexpected"):
        parse(line)


def test_every_command_on_a_page_exists(server: Server, shared_receiver: Receiver) -> None:
    full_account = FullAccount(server, shared_receiver.url("/commanded"))
    owner, operator = full_account.member(), visitors.operator(server)
    shown: set[str] = set()
    for page in GET_PAGES:
        for guest in (operator,) if page.door is Door.OPERATOR else (owner, operator):
            shown |= commands(guest.get(path_with_ids(page, full_account.ids)).html)

    called = {line for line in shown if line.startswith("curl ")}
    assert called
    # Without --globoff, curl would expand braces and brackets in a URL.
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


def api_call(line: str) -> tuple[str, str]:
    """Return the method and the path of a curl command."""
    words = shlex.split(line.removesuffix("\\"))
    method = words[words.index("-X") + 1] if "-X" in words else "GET"
    url = urlsplit(words[-1])
    return method, url.path + (f"?{url.query}" if url.query else "")


@pytest.mark.parametrize("role", Role, ids=lambda role: role.text)
def test_members_see_only_calls_and_commands_of_their_role(
    role: Role, server: Server, shared_receiver: Receiver
) -> None:
    mine, theirs = (
        FullAccount(server, shared_receiver.url("/mine")),
        FullAccount(server, shared_receiver.url("/theirs")),
    )
    scopes = sorted(SCOPES_OF_ROLE[role])
    key = server.api().ok("POST", f"/v1/accounts/{mine.id}/keys", {"name": role.text, "scopes": scopes})["key"]
    guest, api = mine.member(role.text), server.api(key)
    pages = [guest.get(path_with_ids(page, mine.ids)).html for page in GET_PAGES if page.door is Door.ACCOUNT]
    shown = {line for html in pages for line in commands(html)}
    calls = {api_call(line) for line in shown if line.startswith("curl ")}

    assert ("POST", "/v1/endpoints") in calls or Scope.ENDPOINTS_WRITE not in scopes
    forbidden = []
    for method, path in sorted(calls):
        # Use IDs of another account: an allowed call gets 404, and a forbidden call gets 401 or 403.
        for name in () if method == "GET" else ("endpoint", "delivery", "replay", "session"):
            path = path.replace(mine.ids[name], theirs.ids[name]).replace("ep_\u2026", theirs.ids["endpoint"])  # noqa: PLW2901
        if api(method, path, None if method == "GET" else {}).status in {401, 403}:
            forbidden.append(f"{method} {path}")
    assert not forbidden
    assert not [line for line in shown if line.startswith("uplift-server ")]
    assert all("Ask an owner or admin for an API key." in html for html in pages if 'class="calls"' in html) == (
        Right.KEYS_MANAGE not in RIGHTS_OF_ROLE[role]
    )
    assert any(line.startswith("uplift listen") for line in shown) == (Scope.LISTEN in scopes)


def test_operators_see_their_own_form_of_each_command(server: Server, shared_receiver: Receiver) -> None:
    full_account = FullAccount(server, shared_receiver.url("/operated"))
    operator = visitors.operator(server)
    shown = set()
    for page in GET_PAGES:
        html = operator.get(path_with_ids(page, full_account.ids)).html
        for sheet in html.split('class="calls"')[1:]:
            shown |= commands(sheet.partition("</section>")[0])
    endpoint = full_account.ids["endpoint"]
    assert f"uplift-server endpoints show {endpoint} --account {full_account.id}" in shown
    assert f"uplift-server deliveries resend {full_account.ids['delivery']} --account {full_account.id}" in shown
    assert not [line for line in shown if line.startswith("uplift ")]


def test_calls_return_the_rows_of_the_page(server: Server, shared_receiver: Receiver) -> None:
    account, api = server.account()
    endpoint = api.endpoint(shared_receiver.url("/calls"))["id"]
    guest = visitors.member(server, account, "admin")
    home, since = f"/accounts/{account}", "created_after=2026-01-31T12%3A00"
    sent = f"{since}%3A00.000Z"
    for page, call in (
        ("deliveries?status=failed", "/v1/deliveries?status=failed&test=false"),
        ("deliveries?tests=1", "/v1/deliveries"),
        (f"endpoints/{endpoint}?type={TYPE}&{since}", f"/v1/endpoints/{endpoint}/deliveries?type={TYPE}&{sent}"),
        (f"settings/audit-log?actor=member&action=&{since}&created_before=", f"/v1/audit-log?actor=member&{sent}"),
    ):
        shown = unescape(guest.get(f"{home}/{page}").html)
        assert f"{call}'" in shown or f"{call} " in shown, page
        assert api("GET", call).status == 200


def test_a_resend_preview_shows_its_command(server: Server, shared_receiver: Receiver) -> None:
    full_account = FullAccount(server, shared_receiver.url("/previewed"))
    path = f"/accounts/{full_account.id}/deliveries/resend?status=delivered&object_id=o+1"
    full_account.api.ok("POST", "/v1/events", {"type": TYPE, "data": {"number": 1, "object": {"id": "o 1"}}})
    filters = "--status delivered --object-id 'o 1' --yes"

    guest = full_account.member()

    shown = wait_for(lambda: commands(guest.get(path).html), "the delivery can be resent")
    assert f"uplift deliveries resend {filters}" in shown
    shown = commands(visitors.operator(server).get(path).html)
    assert f"uplift-server deliveries resend {filters} --account {full_account.id}" in shown
    pending = guest.get(path.replace("delivered", "pending")).text
    assert "You can resend failed, cancelled and delivered deliveries." in pending
