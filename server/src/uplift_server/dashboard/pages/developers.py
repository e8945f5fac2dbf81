"""Developers page: API keys, source IP addresses, listen sessions, and links to the documentation."""

from collections.abc import Collection
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.http.source_addresses import current, upcoming
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import DEFAULT_SCOPES, Scope
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.key_forms import SCOPE_WORDS, changed_key, new_key
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import SHOWN, Visit
from uplift_server.service.authentication import ACCOUNT_PREFIX
from uplift_server.service.context import Listing
from uplift_server.service.errors import ConfirmationRequired, Conflict, Invalid
from uplift_server.store.records import ApiKey

ANSWERS_SHOWN: Final = 50
DOCUMENTS: Final = (
    ("/docs", "Quickstart", "Create an endpoint, verify requests and go live"),
    (
        "/docs/receiving",
        "Receiving webhooks",
        "Headers, verification, responses, idempotency and ordering",
    ),
    ("/docs/retries", "Retries and endpoint lifecycle", "Retry schedule, failed deliveries, warnings and disabling"),
    ("/docs/library", "Python library", "Verification for Flask, FastAPI, Django and plain Python"),
    ("/docs/uplift", "uplift command", "Listen sessions, endpoints, events and deliveries in the terminal"),
    ("/docs/api", "API reference", "All calls with their fields and examples"),
    ("/openapi.json", "OpenAPI document", "API description for client generators"),
    ("/docs/errors", "Error codes", "Causes of errors, and how to fix them"),
    ("/docs/outcomes", "Outcomes of attempts", "Causes of failed attempts, and how to fix them"),
    ("/docs/vectors.json", "Test vectors", "Signed sample requests to test your own verification code"),
)
"""The links to the documentation: path, title and description."""
_PAGE: Final = "developers/page.html"
_KEY: Final = "developers/key.html"
_PATH: Final = "developers"


async def page(visit: Visit) -> Response:
    """Show the developers page."""
    return await _page(visit)


async def make_key(visit: Visit) -> Response:
    """Create an API key, and redirect to the page that shows the key once."""
    sent = await visit.form()
    draft, problems = new_key(sent)
    shown: dict[str, Any] = {
        "name": sent.text("name"),
        "chosen": sent.texts("scopes"),
        "expires_at": sent.instant("expires_at", []),
    }
    try:
        made, text = await visit.services.keys.create(
            visit.caller, _account(visit), draft, idempotency_key=key_of(sent), problems=problems
        )
    except Invalid as error:
        return await _page(visit, invalid=error, **shown)
    except ConfirmationRequired:
        return await _page(visit, status=403, wants_password=True, **shown)
    except Conflict as error:
        return await _page(visit, status=409, refusal=error.detail, **shown)
    return visit.leave_with_secret(visit.path(_PATH), ids.prefixed(ids.KEY, made.id), text)


async def key(visit: Visit) -> Response:
    """Show the form that updates an API key."""
    found = await visit.services.keys.get(visit.caller, _account(visit), visit.parameter("key"))
    return visit.render(_KEY, **_about(visit, found), name=found.name, expires_at=found.expires_at)


async def change_key(visit: Visit) -> Response:
    """Update the name and the expiry of an API key."""
    sent = await visit.form()
    found = await visit.services.keys.get(visit.caller, _account(visit), visit.parameter("key"))
    draft, problems = changed_key(sent, found)
    shown = {"name": sent.text("name"), "expires_at": sent.instant("expires_at", [])}
    try:
        changed = await visit.services.keys.update(
            visit.caller, _account(visit), visit.parameter("key"), draft, problems=problems
        )
    except Invalid as error:
        return visit.refuse(_KEY, error.problems, **_about(visit, found), **shown)
    except ConfirmationRequired:
        return visit.render(_KEY, 403, wants_password=True, **_about(visit, found), **shown)
    return visit.leave(visit.path(_PATH), f"API key {changed.name} updated.")


async def revoke_key(visit: Visit) -> Response:
    """Revoke an API key."""
    await visit.services.keys.revoke(visit.caller, _account(visit), visit.parameter("key"))
    return visit.leave(visit.path(_PATH), "API key revoked.")


async def session(visit: Visit) -> Response:
    """Show a listen session, and the responses of the developer's local server."""
    name = visit.parameter("session")
    shown = await visit.services.listening.get(visit.caller, name)
    answers = await visit.services.listening.responses(
        visit.caller, name, Listing(ANSWERS_SHOWN, visit.query.optional("cursor"))
    )
    return visit.render(
        "developers/session.html",
        id=name,
        shown=shown,
        answers=answers.items,
        next=visit.cursor(answers.next_key),
    )


async def end_session(visit: Visit) -> Response:
    """End a listen session."""
    await visit.services.listening.delete(visit.caller, visit.parameter("session"))
    return visit.leave(visit.path(_PATH), "Listen session ended.")


async def _page(
    visit: Visit,
    *,
    status: int = 200,
    invalid: Invalid | None = None,
    refusal: str | None = None,
    wants_password: bool = False,
    name: str = "",
    chosen: Collection[str] = tuple(DEFAULT_SCOPES),
    expires_at: int | None = None,
) -> Response:
    services, caller = visit.services, visit.caller
    may_manage = caller.principal.has_right(Right.KEYS_MANAGE)
    keys: list[tuple[str, ApiKey]] = []
    next_key = None
    if may_manage:
        found = await services.keys.page(caller, _account(visit), visit.listing())
        keys, next_key = [(ids.prefixed(ids.KEY, key.id), key) for key in found.items], found.next_key
    sessions = None
    if caller.principal.allows(Scope.LISTEN):
        listed = await services.listening.page(caller, Listing(SESSIONS_PER_ACCOUNT_MAX))
        sessions = [(ids.prefixed(ids.LISTEN_SESSION, each.session.id), each) for each in listed.items]
    now, created = services.context.now(), visit.query.text(SHOWN)
    context: dict[str, Any] = {
        "may_manage": may_manage,
        "account": _account(visit),
        "keys": keys,
        "next": visit.cursor(next_key),
        "created": created,
        "secret": visit.shown_secret(created),
        "wants_password": wants_password,
        "name": name,
        "chosen": chosen,
        "expires_at": expires_at,
        "now": now,
        "scopes": {scope: SCOPE_WORDS[scope] for scope in Scope if caller.principal.allows(scope)},
        "documents": DOCUMENTS,
        "addresses": current(services.source_ips, now),
        "upcoming": upcoming(services.source_ips, now),
        "sessions": sessions,
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, status, refusal=refusal, **context)


def _about(visit: Visit, key: ApiKey) -> dict[str, Any]:
    text = ids.prefixed(ids.KEY, key.id)
    return {
        "id": text,
        "key": key,
        "prefix": ACCOUNT_PREFIX,
        "here": visit.path(_PATH, "keys", text),
        "list": visit.path(_PATH),
        "list_title": "Developers",
        "call": f"/v1/accounts/{_account(visit)}/keys/{text}",
        "command": f"uplift-server keys update {text} --account {_account(visit)} --name …",
        "now": visit.services.context.now(),
        "may_change_expiry": all(visit.caller.principal.allows(scope) for scope in Scope if scope in key.scopes),
    }


def _account(visit: Visit) -> str:
    assert visit.account is not None
    return ids.prefixed(ids.ACCOUNT, visit.account.id)


PAGES: Final = (
    account_page(f"/{_PATH}", page),
    account_form(f"/{_PATH}/keys", make_key, back=f"/{_PATH}"),
    account_page(f"/{_PATH}/keys/{{key}}", key),
    account_form(f"/{_PATH}/keys/{{key}}", change_key),
    account_form(f"/{_PATH}/keys/{{key}}/revoke", revoke_key, back=f"/{_PATH}"),
    account_page(f"/{_PATH}/listen-sessions/{{session}}", session),
    account_form(f"/{_PATH}/listen-sessions/{{session}}/end", end_session, back=f"/{_PATH}"),
)
