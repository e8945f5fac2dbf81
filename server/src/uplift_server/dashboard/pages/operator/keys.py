"""Pages that list, create, update and revoke service keys."""

from collections.abc import Collection
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.dashboard.forms import key_of
from uplift_server.dashboard.key_forms import SCOPE_WORDS, changed_key, new_key
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import SHOWN, Visit
from uplift_server.service.authentication import SERVICE_PREFIX
from uplift_server.service.errors import ConfirmationRequired, Conflict, Invalid
from uplift_server.store.records import ServiceKey

_PATH: Final = "/operator/keys"
_LIST: Final = "operator/keys.html"
_ONE: Final = "developers/key.html"


async def listed(visit: Visit) -> Response:
    """List the service keys."""
    return await _page(visit)


async def create(visit: Visit) -> Response:
    """Create a service key, and redirect to the page that shows the key once."""
    sent = await visit.form()
    draft, problems = new_key(sent)
    shown: dict[str, Any] = {
        "name": sent.text("name"),
        "chosen": sent.texts("scopes"),
        "expires_at": sent.instant("expires_at", []),
    }
    try:
        key, text = await visit.services.service_keys.create(
            visit.caller, draft, idempotency_key=key_of(sent), problems=problems
        )
    except Invalid as error:
        return await _page(visit, invalid=error, **shown)
    except ConfirmationRequired:
        return await _page(visit, status=403, wants_password=True, **shown)
    except Conflict as error:
        return await _page(visit, status=409, refusal=error.detail, **shown)
    return visit.leave_with_secret(_PATH, ids.prefixed(ids.KEY, key.id), text)


async def one(visit: Visit) -> Response:
    """Show the form that updates a service key."""
    key = await visit.services.service_keys.get(visit.caller, visit.parameter("service_key"))
    return visit.render(_ONE, **_about(visit, key), name=key.name, expires_at=key.expires_at)


async def update(visit: Visit) -> Response:
    """Update the name and the expiry of a service key."""
    sent, name = await visit.form(), visit.parameter("service_key")
    key = await visit.services.service_keys.get(visit.caller, name)
    draft, problems = changed_key(sent, key)
    shown = {"name": sent.text("name"), "expires_at": sent.instant("expires_at", [])}
    try:
        changed = await visit.services.service_keys.update(visit.caller, name, draft, problems=problems)
    except Invalid as error:
        return visit.refuse(_ONE, error.problems, **_about(visit, key), **shown)
    except ConfirmationRequired:
        return visit.render(_ONE, 403, wants_password=True, **_about(visit, key), **shown)
    return visit.leave(_PATH, f"Service key {changed.name} updated.")


async def revoke(visit: Visit) -> Response:
    """Revoke a service key."""
    await visit.services.service_keys.revoke(visit.caller, visit.parameter("service_key"))
    return visit.leave(_PATH, "Service key revoked.")


async def _page(
    visit: Visit,
    *,
    status: int = 200,
    invalid: Invalid | None = None,
    refusal: str | None = None,
    wants_password: bool = False,
    name: str = "",
    chosen: Collection[str] = (),
    expires_at: int | None = None,
) -> Response:
    page = await visit.services.service_keys.page(visit.caller, visit.listing())
    created = visit.query.text(SHOWN)
    context: dict[str, Any] = {
        "keys": [(ids.prefixed(ids.KEY, key.id), key) for key in page.items],
        "next": visit.cursor(page.next_key),
        "created": created,
        "secret": visit.shown_secret(created),
        "name": name,
        "chosen": chosen,
        "expires_at": expires_at,
        "wants_password": wants_password,
        "scopes": SCOPE_WORDS,
        "now": visit.services.context.now(),
    }
    if invalid is not None:
        return visit.refuse(_LIST, invalid.problems, **context)
    return visit.render(_LIST, status, refusal=refusal, **context)


def _about(visit: Visit, key: ServiceKey) -> dict[str, Any]:
    text = ids.prefixed(ids.KEY, key.id)
    return {
        "id": text,
        "key": key,
        "may_change_expiry": True,
        "prefix": SERVICE_PREFIX,
        "here": f"{_PATH}/{text}",
        "list": _PATH,
        "list_title": "Service keys",
        "call": f"/v1/keys/{text}",
        "command": f"uplift-server keys update {text} --service --name …",
        "now": visit.services.context.now(),
    }


PAGES: Final = (
    operator_page("/keys", listed),
    operator_form("/keys", create),
    operator_page("/keys/{service_key}", one),
    operator_form("/keys/{service_key}", update),
    operator_form("/keys/{service_key}/revoke", revoke, back="/keys"),
)
