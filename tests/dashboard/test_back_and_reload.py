"""Back and reload after forms: each path of a form has a page, and no page of a form submits it again."""

from urllib.parse import urlsplit

import pytest
from tests.dashboard.full_account import FullAccount
from tests.dashboard.routes import path_with_ids
from tests.dashboard.visitors import Guest, operator
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page

FORMS = [page for page in PAGES if page.method == "POST"]
READABLE = {page.path for page in PAGES if page.method == "GET"}


def _name(page: Page) -> str:
    return page.path


@pytest.fixture(scope="module")
def full(server: Server, shared_receiver: Receiver) -> FullAccount:
    return FullAccount(server, shared_receiver.url("/back"))


@pytest.fixture(scope="module")
def owner(full: FullAccount) -> Guest:
    return full.member()


@pytest.fixture(scope="module")
def operators(server: Server) -> Guest:
    return operator(server)


@pytest.mark.parametrize("page", FORMS, ids=_name)
def test_the_path_of_a_form_has_a_page(page: Page, owner: Guest, operators: Guest, full: FullAccount) -> None:
    assert (page.back is None) == (page.path in READABLE)
    path = path_with_ids(page, {**full.ids, "token": "t" * 43})
    visitor = operators if page.door is Door.OPERATOR else owner

    shown = visitor.get(path)

    assert shown.status == 200, (path, shown.path)
    if page.back is not None:
        first = visitor.get(path, follow=False)
        assert (first.status, urlsplit(first.headers["location"]).path) == (
            303,
            path_with_ids(page, full.ids, page.back).partition("?")[0],
        )
