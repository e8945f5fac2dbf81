"""All pages and forms: isolation of accounts, permissions of roles, and protection against other sites."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from html import unescape
from urllib.parse import urlencode, urlsplit

import pytest
from tests.dashboard import visitors
from tests.dashboard.full_account import FullAccount
from tests.dashboard.routes import forms, links, parameters, path_with_ids
from tests.dashboard.visitors import Guest, PageResponse
from tests.e2e.harness import Server
from tests.e2e.receiving import Receiver

from uplift_server.core.security.rights import RIGHTS_OF_ROLE, SCOPES_OF_ROLE, Right, Role
from uplift_server.core.security.scopes import Scope
from uplift_server.dashboard.app import PAGES
from uplift_server.dashboard.routes import Door, Page
from uplift_server.dashboard.security import CSRF_FIELD

ACCOUNT_PAGES = [page for page in PAGES if page.door is Door.ACCOUNT]
GET_PAGES = [page for page in ACCOUNT_PAGES if page.method == "GET" and not page.path.endswith("/live")]
FORMS = [page for page in PAGES if page.method == "POST"]

PAGE_PERMISSIONS: Mapping[str, Scope | Right | None] = {
    "": None,
    "/get-started": None,
    "/overview": Scope.ENDPOINTS_READ,
    "/endpoints": Scope.ENDPOINTS_READ,
    "/endpoints/new": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}": Scope.ENDPOINTS_READ,
    "/endpoints/{endpoint}/created": Scope.ENDPOINTS_READ,
    "/endpoints/{endpoint}/edit": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/subscription": Scope.ENDPOINTS_READ,
    "/endpoints/{endpoint}/activity": Right.AUDIT_READ,
    "/endpoints/{endpoint}/security": Scope.ENDPOINTS_READ,
    "/endpoints/{endpoint}/test": Scope.ENDPOINTS_READ,
    "/search": None,
    "/events": Scope.EVENTS_READ,
    "/events/{event}": Scope.EVENTS_READ,
    "/rejected-events": Scope.EVENTS_READ,
    "/deliveries": Scope.DELIVERIES_READ,
    "/deliveries/resend": Scope.DELIVERIES_WRITE,
    "/deliveries/{delivery}": Scope.DELIVERIES_READ,
    "/replays": Scope.DELIVERIES_READ,
    "/replays/new": Scope.DELIVERIES_WRITE,
    "/replays/{replay}": Scope.DELIVERIES_READ,
    "/catalog": None,
    "/catalog/{type}": None,
    "/developers": None,
    "/developers/keys/{key}": Right.KEYS_MANAGE,
    "/developers/listen-sessions/{session}": Scope.LISTEN,
    "/settings": None,
    "/settings/contacts": None,
    "/settings/audit-log": Right.AUDIT_READ,
    "/settings/erasures": Right.DATA_ERASE,
    "/settings/erasures/new": Right.DATA_ERASE,
    "/settings/erasures/{erasure}": Right.DATA_ERASE,
}
"""The permission that each page requires. None: any member."""
FORM_PERMISSIONS: Mapping[str, Scope | Right | None] = {
    "/get-started/endpoint": Scope.ENDPOINTS_WRITE,
    "/get-started/secret": Scope.SECRETS_READ,
    "/get-started/test": Right.ENDPOINTS_TEST,
    "/get-started/verify": Right.ENDPOINTS_TEST,
    "/endpoints/new": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/edit": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/delete": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/pause": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/enable": Scope.ENDPOINTS_WRITE,
    "/endpoints/{endpoint}/security/reveal": Scope.SECRETS_READ,
    "/endpoints/{endpoint}/security/rotate": Scope.SECRETS_WRITE,
    "/endpoints/{endpoint}/security/expire-old": Scope.SECRETS_WRITE,
    "/endpoints/{endpoint}/test": Right.ENDPOINTS_TEST,
    "/deliveries/resend": Scope.DELIVERIES_WRITE,
    "/deliveries/{delivery}/resend": Scope.DELIVERIES_WRITE,
    "/deliveries/{delivery}/cancel": Scope.DELIVERIES_WRITE,
    "/replays": Scope.DELIVERIES_WRITE,
    "/replays/{replay}/pause": Scope.DELIVERIES_WRITE,
    "/replays/{replay}/resume": Scope.DELIVERIES_WRITE,
    "/replays/{replay}/cancel": Scope.DELIVERIES_WRITE,
    "/catalog/{type}/test": Right.ENDPOINTS_TEST,
    "/developers/keys": Right.KEYS_MANAGE,
    "/developers/keys/{key}": Right.KEYS_MANAGE,
    "/developers/keys/{key}/revoke": Right.KEYS_MANAGE,
    "/developers/listen-sessions/{session}/end": Scope.LISTEN,
    "/settings/invitations": Right.MEMBERS_MANAGE,
    "/settings/invitations/{invitation}/withdraw": Right.MEMBERS_MANAGE,
    "/settings/members/{member}/role": Right.MEMBERS_MANAGE,
    "/settings/members/{member}/remove": Right.MEMBERS_MANAGE,
    "/settings/contacts": Right.ACCOUNT_MANAGE,
    "/settings/erasures": Right.DATA_ERASE,
    "/settings/erasures/preview": Right.DATA_ERASE,
}
"""The permission that each form requires."""
READING_SCOPES = {Scope.EVENTS_READ, Scope.ENDPOINTS_READ, Scope.DELIVERIES_READ}
PAGES_FOR_CHANGES = {"/operator/accounts/new", "/operator/event-types/new-type"}
"""Operator pages that only show a form."""
OPERATOR_FORMS = {"/settings/members/{member}/password-link", "/settings/members/{member}/second-factor"}
"""Forms of account pages that only operators can submit."""


_CODE = re.compile(r"<pre[^>]*><code>(.*?)</code></pre>", re.DOTALL)
SHARED_PARAMETERS = {"type", "name"}
"""Path parameters that have the same values in all accounts."""


def _name(page: Page) -> str:
    return f"{page.method} {page.path.removeprefix('/accounts/{account}')}"


@pytest.fixture(scope="module")
def mine(server: Server, shared_receiver: Receiver) -> FullAccount:
    """The account of the member."""
    return FullAccount(server, shared_receiver.url("/mine"))


@pytest.fixture(scope="module")
def theirs(server: Server, shared_receiver: Receiver) -> FullAccount:
    """Another account."""
    return FullAccount(server, shared_receiver.url("/theirs"), "Otters")


@dataclass(frozen=True)
class SignedInVisitor:
    """A signed-in visitor who follows no redirects."""

    guest: Guest
    token: str
    """The form token of the session."""

    @classmethod
    def of(cls, guest: Guest) -> "SignedInVisitor":
        return cls(guest, guest.get("/accounts/acc_none/overview").token)

    def get(self, path: str) -> PageResponse:
        return self.guest.get(path, follow=False)

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> PageResponse:
        return self.guest.send(path, {CSRF_FIELD: self.token, **fields}, **headers)


@pytest.fixture(scope="module")
def owner(mine: FullAccount) -> SignedInVisitor:
    """The owner of the account `mine`, without access to `theirs`."""
    return SignedInVisitor.of(mine.member())


@pytest.fixture(scope="module")
def operator(server: Server) -> SignedInVisitor:
    """An operator."""
    return SignedInVisitor.of(visitors.operator(server))


@pytest.fixture(scope="module")
def form_fields(owner: SignedInVisitor, mine: FullAccount) -> Mapping[str, dict[str, str]]:
    """The fields of all forms of the account's pages, by path."""
    found = {}
    for page in GET_PAGES:
        for form in forms(owner.get(path_with_ids(page, mine.ids)).html):
            if form.method == "POST":
                found[form.action] = form.fields
    return found


@pytest.mark.parametrize("page", GET_PAGES, ids=_name)
def test_the_owner_sees_every_page(page: Page, owner: SignedInVisitor, mine: FullAccount) -> None:
    response = owner.get(path_with_ids(page, mine.ids))

    assert response.status == 200
    assert {form.fields.get(CSRF_FIELD) for form in forms(response.html) if form.method == "POST"} == {owner.token}


def test_no_link_is_broken(owner: SignedInVisitor, mine: FullAccount) -> None:
    found = {
        link: page.path
        for page in GET_PAGES
        for link in links(owner.get(path_with_ids(page, mine.ids)).html)
        if link.startswith("/")
    }
    broken = [f"{link} on {path}" for link, path in found.items() if owner.get(link).status >= 400]

    assert len(found) >= len(GET_PAGES)
    assert not broken


def test_no_link_of_the_operator_pages_is_broken(server: Server, mine: FullAccount) -> None:
    operator = visitors.operator(server)
    console = [page for page in PAGES if page.door is Door.OPERATOR and page.method == "GET"]
    shown = [page for page in console if not page.path.endswith("/live")]
    traced = ("account", "endpoint", "event", "delivery", "replay")
    paths = [path_with_ids(page, mine.ids) for page in shown] + [
        f"/operator/trace?id={mine.ids[name]}" for name in traced
    ]
    found = {link: path for path in paths for link in links(operator.get(path).html) if link.startswith("/")}
    broken = [f"{link} on {path}" for link, path in found.items() if operator.get(link).status >= 400]

    assert len(found) >= len(paths)
    assert not broken


@pytest.mark.parametrize("page", ACCOUNT_PAGES, ids=_name)
def test_objects_of_another_account_are_not_found(
    page: Page,
    owner: SignedInVisitor,
    mine: FullAccount,
    theirs: FullAccount,
    form_fields: Mapping[str, dict[str, str]],
) -> None:
    """Replace all IDs with those of the other account, then only the account ID, then each remaining ID alone."""
    before = theirs.state()
    fields = form_fields.get(path_with_ids(page, mine.ids), {})
    id_sets = [theirs.ids, {**mine.ids, "account": theirs.id}]
    id_sets += [
        {**mine.ids, name: theirs.ids[name]} for name in parameters(page) if name not in {"account", *SHARED_PARAMETERS}
    ]
    for ids in id_sets:
        path = path_with_ids(page, ids)
        response = owner.get(path) if page.method == "GET" else owner.post(path, {**fields, CSRF_FIELD: owner.token})

        assert response.status == 404, (path, response.status, response.headers.get("location"))
        # The page may repeat the requested IDs, but not the URL of the other account's endpoint.
        assert "/theirs" not in response.html
    assert theirs.state() == before


def test_no_form_accepts_an_id_of_another_account(
    owner: SignedInVisitor, mine: FullAccount, theirs: FullAccount, form_fields: Mapping[str, dict[str, str]]
) -> None:
    before = theirs.state()
    swapped = {mine.ids[name]: theirs.ids[name] for name in mine.ids if name not in SHARED_PARAMETERS}
    submitted = 0
    for action, fields in form_fields.items():
        if not set(fields.values()) & set(swapped):
            continue
        response = owner.post(action, {name: swapped.get(value, value) for name, value in fields.items()})
        assert response.status in {404, 422}, (action, fields, response.status)
        submitted += 1
    assert submitted
    assert theirs.state() == before


@pytest.mark.parametrize("page", GET_PAGES, ids=_name)
def test_query_values_cannot_add_shell_commands(page: Page, owner: SignedInVisitor, mine: FullAccount) -> None:
    for field in ("type", "types", "status", "text", "period", "endpoint"):
        for command in ("x; touch it", "x'; touch it; '"):
            response = owner.get(f"{path_with_ids(page, mine.ids)}?{urlencode({field: command})}")
            for code in _CODE.findall(response.html):
                if "touch" in code:
                    words = shlex.shlex(unescape(code), posix=True, punctuation_chars=True)
                    assert ";" not in list(words), code


@pytest.mark.parametrize("page", [page for page in PAGES if page.door is Door.OPERATOR], ids=_name)
def test_members_cannot_see_operator_pages(page: Page, owner: SignedInVisitor, mine: FullAccount) -> None:
    path = path_with_ids(page, mine.ids)
    response = owner.get(path) if page.method == "GET" else owner.post(path, {})

    assert response.status == 404


@pytest.fixture(scope="module")
def reader(server: Server) -> SignedInVisitor:
    """A read-only operator."""
    guest = Guest(server.url)
    link = server.api().ok("POST", "/v1/sign-in-links", {"read_only": True})["url"]
    guest.post(urlsplit(link).path, follow=False)
    return SignedInVisitor.of(guest)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.door in {Door.ACCOUNT, Door.OPERATOR} and page.method == "GET"], ids=_name
)
def test_a_read_only_operator_sees_no_form(page: Page, reader: SignedInVisitor, mine: FullAccount) -> None:
    if page.path.endswith("/live"):
        return
    response = reader.get(path_with_ids(page, mine.ids))

    permission = PAGE_PERMISSIONS.get(page.path.removeprefix("/accounts/{account}"))
    is_allowed = page.path not in PAGES_FOR_CHANGES and permission in {None, Right.AUDIT_READ, *READING_SCOPES}
    expected = {200} if is_allowed else {403}
    assert response.status in ({303} if page.path == "/accounts/{account}/settings" else expected)
    assert {form.action for form in forms(response.html) if form.method == "POST"} <= {"/sign-out"}


@pytest.mark.parametrize("page", [page for page in FORMS if page.door is not Door.ANYBODY], ids=_name)
def test_a_read_only_operator_can_submit_no_form(
    page: Page, reader: SignedInVisitor, mine: FullAccount, form_fields: Mapping[str, dict[str, str]]
) -> None:
    path = path_with_ids(page, mine.ids)
    before = mine.state()
    fields = {name: value for name, value in form_fields.get(path, {}).items() if name != CSRF_FIELD}

    response = reader.post(path, fields)

    assert (response.status, "You are signed in read-only." in response.text) == (403, True)
    assert mine.state() == before


@pytest.mark.parametrize("page", FORMS, ids=_name)
def test_a_form_of_another_session_or_site_changes_nothing(
    page: Page,
    owner: SignedInVisitor,
    operator: SignedInVisitor,
    mine: FullAccount,
    form_fields: Mapping[str, dict[str, str]],
) -> None:
    visitor, other = (operator, owner) if page.door is Door.OPERATOR else (owner, operator)
    path = path_with_ids(page, {**mine.ids, "token": "t" * 43})
    fields = {name: value for name, value in form_fields.get(path, {}).items() if name != CSRF_FIELD}
    before = mine.state()

    for token in ("", visitor.token[:-1], visitor.token[::-1], other.token):
        assert visitor.post(path, {**fields, CSRF_FIELD: token}).status == 403
    for name, site in (("origin", "https://evil.example"), ("sec_fetch_site", "cross-site")):
        assert visitor.post(path, {**fields, CSRF_FIELD: visitor.token}, **{name: site}).status == 403

    assert mine.state() == before
    assert visitor.get("/").headers["location"] != "/sign-in"


@pytest.mark.parametrize("page", [page for page in PAGES if page.door is not Door.ANYBODY], ids=_name)
def test_pages_require_a_session(page: Page, server: Server, mine: FullAccount) -> None:
    path = path_with_ids(page, mine.ids)
    stranger = Guest(server.url)
    if page.method == "GET":
        response = stranger.get(path, follow=False)
        assert (response.status, response.headers["location"].partition("=")[0]) == (303, "/sign-in?next")
    else:
        assert stranger.send(path, {CSRF_FIELD: "0" * 32}).status == 403


@pytest.mark.parametrize("role", Role, ids=lambda role: role.text)
def test_each_role_sees_only_its_pages(role: Role, mine: FullAccount) -> None:
    granted = SCOPES_OF_ROLE[role] | RIGHTS_OF_ROLE[role]
    guest = mine.member(role.text)
    for page in GET_PAGES:
        needed = PAGE_PERMISSIONS[page.path.removeprefix("/accounts/{account}")]
        expected = 200 if needed is None or needed in granted else 403
        assert guest.get(path_with_ids(page, mine.ids)).status == expected, page.path


@pytest.mark.parametrize("role", Role, ids=lambda role: role.text)
def test_no_role_exceeds_its_permissions(
    role: Role, mine: FullAccount, form_fields: Mapping[str, dict[str, str]]
) -> None:
    """Submit the owner's forms with a valid token. The server rejects the forms that the role does not permit."""
    granted = SCOPES_OF_ROLE[role] | RIGHTS_OF_ROLE[role]
    visitor = SignedInVisitor.of(mine.member(role.text))
    before = mine.state()
    for page in ACCOUNT_PAGES:
        name = page.path.removeprefix("/accounts/{account}")
        if page.method == "GET" or (name not in OPERATOR_FORMS and FORM_PERMISSIONS[name] in granted):
            continue
        path = path_with_ids(page, mine.ids)
        fields = {field: value for field, value in form_fields.get(path, {}).items() if field != CSRF_FIELD}
        assert visitor.post(path, fields).status == (404 if name in OPERATOR_FORMS else 403), name
    assert mine.state() == before
