"""Every page has its own title, so that people can find its tab among many."""

import re

from tests.dashboard import visitors
from tests.dashboard.full_account import FullAccount
from tests.dashboard.routes import parameters, path_with_ids
from tests.dashboard.visitors import Guest
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door

GET_PAGES = [
    page
    for page in PAGES
    if page.method == "GET" and page.door in {Door.ACCOUNT, Door.OPERATOR} and not page.path.endswith("/live")
]


def _title(guest: Guest, path: str) -> tuple[str, str]:
    """Return the path of the shown page and its title."""
    page = guest.get(path)
    found = re.search(r"<title>(.*?)</title>", page.html, re.DOTALL)
    assert found is not None, path
    return page.path, found[1]


def test_every_page_has_its_own_title(server: Server, shared_receiver: Receiver) -> None:
    full_account = FullAccount(server, shared_receiver.url("/titled"))
    other = {"endpoint": full_account.api.endpoint(shared_receiver.url("/titled-too"))["id"]}
    other["event"] = full_account.api.send(2).json["id"]
    operator = visitors.operator(server)
    titles = dict(
        _title(operator, path_with_ids(page, ids))
        for page in GET_PAGES
        for ids in (full_account.ids, full_account.ids | other)
        if ids is full_account.ids or set(other) & set(parameters(page))
    )
    assert len(titles) > 30
    # The checks of the system are part of the system page.
    titles.pop("/operator/system/checks", None)
    shared = {title for title in titles.values() if list(titles.values()).count(title) > 1}
    assert not {path: title for path, title in titles.items() if title in shared}
    assert all("Rapids Academy · " in title for path, title in titles.items() if path.startswith("/accounts/"))
