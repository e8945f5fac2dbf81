"""Forms for account keys and service keys."""

from collections.abc import Mapping
from typing import Final

from uplift_server.core.problems import Problem
from uplift_server.core.security.scopes import AccountsScope, Scope
from uplift_server.core.timestamps import format_timestamp
from uplift_server.dashboard.forms import Form
from uplift_server.service.fields import UNSET, Unset
from uplift_server.service.keys import KeyDraft
from uplift_server.store.records import ApiKey, ServiceKey

SCOPE_WORDS: Final[Mapping[Scope | AccountsScope, str]] = {
    Scope.EVENTS_READ: "Read events and their data",
    Scope.EVENTS_WRITE: "Send events",
    Scope.ENDPOINTS_READ: "Read endpoints, their health and the audit log",
    Scope.ENDPOINTS_WRITE: "Create, update, test, pause, enable and delete endpoints",
    Scope.DELIVERIES_READ: "Read deliveries, attempts, replays and statistics",
    Scope.DELIVERIES_WRITE: "Resend, cancel and replay deliveries",
    Scope.SECRETS_READ: "Reveal endpoint secrets",
    Scope.SECRETS_WRITE: "Rotate and expire endpoint secrets",
    Scope.LISTEN: "Use listen sessions (uplift listen)",
    AccountsScope.ACCOUNTS_READ: "Read accounts",
    AccountsScope.ACCOUNTS_WRITE: "Create, update and delete accounts",
}
"""The description of each scope, for users."""


def new_key(form: Form) -> tuple[KeyDraft, list[Problem]]:
    """Return the name, scopes and expiry of the new key from a form, and the problems with the expiry."""
    problems: list[Problem] = []
    expires_at = form.instant("expires_at", problems)
    text = None if expires_at is None else format_timestamp(expires_at)
    return KeyDraft(form.text("name"), form.texts("scopes"), text), problems


def changed_key(form: Form, key: ApiKey | ServiceKey) -> tuple[KeyDraft, list[Problem]]:
    """Return the new name and expiry of a key from a form, and the problems with the expiry.

    The expiry is UNSET if the person did not change it, or if the form does not contain it.
    """
    problems: list[Problem] = []
    sent = form.instant("expires_at", problems)
    expires_at: str | Unset | None = None if sent is None else format_timestamp(sent)
    # Ignore milliseconds, because the form shows the expiry without them.
    if "expires_at" not in form.as_sent() or _seconds(sent) == _seconds(key.expires_at):
        expires_at = UNSET
    return KeyDraft(form.text("name"), expires_at=expires_at), problems


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
