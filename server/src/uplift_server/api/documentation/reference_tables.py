"""Tables for the API reference, as Markdown, from the definitions in the code."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from uplift_server.core import ids as prefixes
from uplift_server.core.deliveries.explanations import Reason
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS
from uplift_server.core.people.audit import ACTIONS
from uplift_server.core.scheduling.waiting import WaitingFor
from uplift_server.core.security.rights import RIGHTS_OF_ROLE, SCOPES_OF_ROLE, Right, Role, can_grant
from uplift_server.core.security.scopes import SERVICE_SCOPES, AccountsScope, Scope

PATH_PARAMETERS: Final = {
    "account": "Account ID or `uid`.",
    "delivery": "Delivery ID.",
    "attempt": "Attempt ID.",
    "document": "Name of a page.",
    "endpoint": "Endpoint ID or `uid`.",
    "erasure": "Erasure ID.",
    "event": "Event ID.",
    "invitation": "Invitation ID.",
    "key": "Key ID.",
    "link": "Portal link ID.",
    "member": "Member ID.",
    "name": "Name of the event type.",
    "rejected_event": "Rejected event ID.",
    "replay": "Replay ID.",
    "session": "Listen session ID.",
}
"""The descriptions of path parameters. The keys are parameter names."""
ENUMS: Final[Mapping[str, Sequence[str]]] = {"ExplanationReason": [*Reason], "WaitingFor": [*WaitingFor]}
"""The values of each enumeration that is a separate schema in the OpenAPI document. The keys are schema names."""
_TITLES: Final = {
    "ApiKey": "API key",
    "Problem": "Error",
    "SourceIps": "Source IPs",
}
_SCOPES: Final[Mapping[Scope | AccountsScope | Right, str]] = {
    Scope.EVENTS_READ: "Read events and rejected events",
    Scope.EVENTS_WRITE: "Send events",
    Scope.ENDPOINTS_READ: "Read endpoints and the audit log",
    Scope.ENDPOINTS_WRITE: "Create, update, test, pause, enable and delete endpoints",
    Scope.DELIVERIES_READ: "Read deliveries, attempts, replays and statistics",
    Scope.DELIVERIES_WRITE: "Resend and cancel deliveries; create, pause, resume and cancel replays",
    Scope.SECRETS_READ: "Read endpoint secrets",
    Scope.SECRETS_WRITE: "Rotate secrets and expire old ones",
    Scope.LISTEN: "Read and use listen sessions",
}
_SERVICE_SCOPES: Final[Mapping[Scope | AccountsScope | Right, str]] = {
    **_SCOPES,
    AccountsScope.ACCOUNTS_READ: "Read accounts. Only for service keys",
    AccountsScope.ACCOUNTS_WRITE: "Create, update and delete accounts. Only for service keys",
}
_OF_ROLES: Final[Mapping[Scope | AccountsScope | Right, str]] = {
    **_SCOPES,
    Scope.ENDPOINTS_READ: "Read endpoints",
    Scope.ENDPOINTS_WRITE: "Create, update, pause, enable and delete endpoints",
    Scope.LISTEN: "Read and end listen sessions",
    Right.ENDPOINTS_TEST: "Send test events to endpoints",
    Right.KEYS_MANAGE: "List, create and revoke account keys",
    Right.MEMBERS_MANAGE: "List, invite, change and remove members, except owners",
    Right.ACCOUNT_MANAGE: "Update the account's contacts",
    Right.AUDIT_READ: "Read the audit log",
    Right.DATA_ERASE: "Erase events and read erasure receipts",
}
_IDS: Final = (
    ("Account", prefixes.ACCOUNT),
    ("Endpoint", prefixes.ENDPOINT),
    ("Delivery", prefixes.DELIVERY),
    ("Attempt", prefixes.ATTEMPT),
    ("Replay", prefixes.REPLAY),
    ("Rejected event", prefixes.REJECTED_EVENT),
    ("Erasure", prefixes.ERASURE),
    ("Listen session", prefixes.LISTEN_SESSION),
    ("Key", prefixes.KEY),
    ("Member", prefixes.MEMBER),
    ("Invitation", prefixes.INVITATION),
    ("Portal link", prefixes.LINK),
)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    first, *others = [f"| {' | '.join(map(_cell, cells))} |\n" for cells in (head, *rows)]
    return "".join([first, "|", "---|" * len(head), "\n", *others])


def choice(values: Iterable[str]) -> str:
    """Return values as a phrase, with commas and a final "or"."""
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def title(name: str) -> str:
    """Return a schema's name as a title, such as "Listen session" for `ListenSession`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return _TITLES.get(name, words.capitalize())


def scopes() -> str:
    """Return the table of scopes."""
    return table(("Scope", "Allows"), [(f"`{each}`", _SERVICE_SCOPES[each]) for each in SERVICE_SCOPES])


def roles() -> str:
    """Return the table of permissions, with a column for each role."""
    rows = [
        (text, *(_yes(permission in SCOPES_OF_ROLE[role] | RIGHTS_OF_ROLE[role]) for role in Role))
        for permission, text in _OF_ROLES.items()
        if permission is not Scope.EVENTS_WRITE
    ]
    owners = [can_grant(role, Role.OWNER) and Right.MEMBERS_MANAGE in RIGHTS_OF_ROLE[role] for role in Role]
    rows.append(("Invite, change and remove owners", *map(_yes, owners)))
    return table(("Permission", *(f"`{role.text}`" for role in Role)), rows)


def ids() -> str:
    """Return the table of ID prefixes."""
    return table(("Object", "ID"), [(name, f"`{prefix}_…`") for name, prefix in _IDS])


def endpoint_settings() -> str:
    """Return the table of endpoint settings."""
    rows = [(f"`{each.name}`", each.type.bounds, each.default, each.help) for each in ENDPOINT_SETTINGS]
    return table(("Setting", "Values", "Default", "Description"), rows)


def audit_actions() -> str:
    """Return the table of audit actions."""
    return table(("Action", "Description"), [(f"`{name}`", text) for name, text in ACTIONS.items()])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _yes(is_allowed: bool) -> str:
    return "Yes" if is_allowed else "No"
