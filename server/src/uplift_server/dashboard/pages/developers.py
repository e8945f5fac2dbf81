"""For developers: API keys, the addresses requests come from, and who listens on a machine of their own."""

from collections.abc import Collection
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.deliveries.listening import SESSIONS_PER_ACCOUNT_MAX
from uplift_server.core.http.source_addresses import current, upcoming
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import DEFAULT_SCOPES, Scope
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.routes import account_form, account_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.context import Listing
from uplift_server.service.errors import ConfirmationRequired, Conflict, Invalid
from uplift_server.service.keys import KeyDraft
from uplift_server.store.records import ApiKey

ANSWERS_SHOWN: Final = 50
SCOPE_WORDS: Final = {
    Scope.EVENTS_READ: "read events, with what is in them",
    Scope.EVENTS_WRITE: "send events: say what happened",
    Scope.ENDPOINTS_READ: "read endpoints, their health and the audit log",
    Scope.ENDPOINTS_WRITE: "register, change, test, pause and delete endpoints",
    Scope.DELIVERIES_READ: "read deliveries, attempts and replays",
    Scope.DELIVERIES_WRITE: "resend, cancel and replay deliveries",
    Scope.SECRETS_READ: "see the secrets of endpoints",
    Scope.SECRETS_WRITE: "replace the secrets of endpoints",
    Scope.LISTEN: "listen on one's own machine (uplift listen)",
}
"""What a key may do with a scope."""
DOCUMENTS: Final = (
    ("/docs", "The guide", "from nothing to a receiver that misses nothing, in Python and six other languages"),
    (
        "/docs/library",
        "Python library",
        "verifies and reads what comes, for Flask, FastAPI, Django and plain Python",
    ),
    ("/docs/uplift", "The command uplift", "events on your own machine; endpoints, events and deliveries from a shell"),
    ("/docs/api", "HTTP API", "every call, with an example"),
    ("/docs/api-reference", "API reference", "every field, from the OpenAPI document"),
    ("/openapi.json", "OpenAPI", "for generating clients"),
    ("/docs/errors", "Error codes", "what each means, and what to do"),
    ("/docs/vectors.json", "Test vectors", "for verifiers of your own"),
)
"""What there is to read, and where."""
_PAGE: Final = "developers/page.html"
_PATH: Final = "developers"


async def page(visit: Visit) -> Response:
    """Everything developers need of an account."""
    return await _page(visit)


async def make_key(visit: Visit) -> Response:
    """Make an API key; the answer shows it once."""
    sent = await visit.form()
    name, chosen = sent.text("name"), sent.texts("scopes")
    draft = KeyDraft(name=name, scopes=chosen)
    try:
        key, text = await visit.services.keys.create(visit.caller, _account(visit), draft, idempotency_key=key_of(sent))
    except Invalid as error:
        return await _page(visit, invalid=error, name=name, chosen=chosen)
    except ConfirmationRequired:
        return await _page(visit, status=403, name=name, chosen=chosen, wants_password=True)
    except Conflict as error:
        return await _page(visit, status=409, refusal=error.detail, name=name, chosen=chosen)
    return await _page(visit, made=(key, text))


async def revoke_key(visit: Visit) -> Response:
    """Revoke an API key."""
    await visit.services.keys.revoke(visit.caller, _account(visit), visit.parameter("key"))
    return visit.leave(visit.path(_PATH), "The key is revoked: it is refused from now on.")


async def session(visit: Visit) -> Response:
    """What a developer's machine answered."""
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
    return visit.leave(visit.path(_PATH), "The listen session is ended.")


async def _page(
    visit: Visit,
    *,
    status: int = 200,
    invalid: Invalid | None = None,
    refusal: str | None = None,
    made: tuple[ApiKey, str | None] | None = None,
    wants_password: bool = False,
    name: str = "",
    chosen: Collection[str] = tuple(DEFAULT_SCOPES),
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
    now = services.context.now()
    context: dict[str, Any] = {
        "may_manage": may_manage,
        "account": _account(visit),
        "keys": keys,
        "next": visit.cursor(next_key),
        "made": made,
        "wants_password": wants_password,
        "name": name,
        "chosen": chosen,
        "scopes": {scope: words for scope, words in SCOPE_WORDS.items() if caller.principal.allows(scope)},
        "documents": DOCUMENTS,
        "addresses": current(services.source_ips, now),
        "upcoming": upcoming(services.source_ips, now),
        "sessions": sessions,
    }
    if invalid is not None:
        return visit.refuse(_PAGE, invalid.problems, **context)
    return visit.render(_PAGE, status, refusal=refusal, **context)


def _account(visit: Visit) -> str:
    assert visit.account is not None
    return ids.prefixed(ids.ACCOUNT, visit.account.id)


PAGES: Final = (
    account_page(f"/{_PATH}", page),
    account_form(f"/{_PATH}/keys", make_key),
    account_form(f"/{_PATH}/keys/{{key}}/revoke", revoke_key),
    account_page(f"/{_PATH}/listen-sessions/{{session}}", session),
    account_form(f"/{_PATH}/listen-sessions/{{session}}/end", end_session),
)
