"""Pages that list, create, edit and delete accounts, and that manage portal links."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.responses import Response

from uplift_server.core import ids
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Role
from uplift_server.dashboard.forms import Form, by_label, changed_since, key_of, seen_versions
from uplift_server.dashboard.own_data import metadata_input, own_data
from uplift_server.dashboard.pages.operator.volumes import volume
from uplift_server.dashboard.routes import operator_form, operator_page
from uplift_server.dashboard.visit import Visit
from uplift_server.service.accounts import AccountDraft
from uplift_server.service.context import Listing
from uplift_server.service.errors import Conflict, Invalid, PreconditionFailed
from uplift_server.service.portal_links import LinkDraft
from uplift_server.service.versions import version_of
from uplift_server.store.records import Account

_NEW: Final = "operator/new_account.html"
_ONE: Final = "operator/account.html"
_SEARCH_CHARACTERS_MAX: Final = 200
LINKS_SHOWN: Final = 20
_LABELS: Final = {"name": "Name", "contact_emails": "Contacts", "uid": "Your own ID", "metadata": "Metadata"}
ROLES: Final = tuple((role.text, role.text.capitalize()) for role in Role)


async def listed(visit: Visit) -> Response:
    """List the accounts that match the search."""
    search = visit.query.text("search")[:_SEARCH_CHARACTERS_MAX]
    page = await visit.services.operator_lists.accounts(visit.caller, search, visit.listing())
    shown = [(ids.prefixed(ids.ACCOUNT, each.account.id), each) for each in page.items]
    series = await visit.services.statistics.of_accounts(visit.caller, [account for account, _ in shown])
    return visit.render(
        "operator/accounts.html",
        search=search,
        rows=[(account, each, volume(series[account])) for account, each in shown],
        next=visit.cursor(page.next_key),
    )


async def new(visit: Visit) -> Response:
    """Show the form that creates an account."""
    visit.caller.require_operator()
    return visit.render(_NEW, name="", contact_emails="", uid="", metadata="")


async def create(visit: Visit) -> Response:
    """Create an account."""
    form = await visit.form()
    draft, problems = _draft(form)
    try:
        account, _ = await visit.services.accounts.create(
            visit.caller, draft, idempotency_key=key_of(form), problems=problems
        )
    except Invalid as error:
        return visit.refuse(_NEW, error.problems, **_sent(form))
    except Conflict as error:
        return visit.refuse(_NEW, [_taken(error)], **_sent(form))
    return visit.leave(_path(account.id), f"Account {account.name} created.")


async def one(visit: Visit) -> Response:
    """Show one account, its statistics and its portal links."""
    return await _one(visit)


async def update(visit: Visit) -> Response:
    """Update an account's fields."""
    form = await visit.form()
    draft, problems = _draft(form)
    try:
        account = await visit.services.accounts.update(
            visit.caller, visit.parameter("account"), draft, versions=seen_versions(form), problems=problems
        )
    except Invalid as error:
        return await _one(visit, error.problems, form=_sent(form), version=form.text("version"))
    except PreconditionFailed:
        current = _filled(await visit.services.accounts.get(visit.caller, visit.parameter("account")))
        refusal = changed_since(by_label(_sent(form), _LABELS), by_label(current, _LABELS))
        return await _one(visit, form=_sent(form), refusal=refusal)
    except Conflict as error:
        return await _one(visit, [_taken(error)], form=_sent(form), version=form.text("version"))
    return visit.leave(_path(account.id), "Account updated.")


async def create_link(visit: Visit) -> Response:
    """Create a portal link, and redirect to the page that shows the link once."""
    form, account = await visit.form(), visit.parameter("account")
    draft = LinkDraft(form.optional("email"), form.text("role"))
    try:
        link = await visit.services.portal_links.create(visit.caller, account, draft, idempotency_key=key_of(form))
    except Invalid as error:
        return await _one(visit, error.problems, invited=(form.text("email"), form.text("role")))
    return visit.leave_with_secret(f"/operator/accounts/{account}", account, link.url)


async def revoke_link(visit: Visit) -> Response:
    """Revoke an unused portal link."""
    account = visit.parameter("account")
    await visit.services.portal_links.revoke(visit.caller, account, visit.parameter("link"))
    return visit.leave(f"/operator/accounts/{account}", "Portal link revoked.")


async def delete(visit: Visit) -> Response:
    """Delete an account with its keys and endpoints."""
    account = await visit.services.accounts.get(visit.caller, visit.parameter("account"))
    await visit.services.accounts.delete(visit.caller, visit.parameter("account"))
    return visit.leave("/operator/accounts", f"Account {account.name} deleted.")


async def _one(
    visit: Visit,
    problems: Sequence[Problem] = (),
    *,
    form: dict[str, str] | None = None,
    version: str | None = None,
    refusal: str | None = None,
    invited: tuple[str, str] = ("", Role.MEMBER.text),
) -> Response:
    """Return an account's page. `version` is the version that the visitor has seen, by default the current one."""
    text = visit.parameter("account")
    account = await visit.services.accounts.get(visit.caller, text)
    series = (await visit.services.statistics.of_accounts(visit.caller, [text]))[text]
    links = await visit.services.portal_links.page(visit.caller, text, Listing(LINKS_SHOWN))
    context: dict[str, Any] = {
        "id": text,
        "account": account,
        "version": version_of(account) if version is None else version,
        "listed": await visit.services.operator_lists.account_summary(account),
        "volume": volume(series),
        "roles": ROLES,
        "links": [(ids.prefixed(ids.LINK, each.id), each) for each in links.items],
        "secret": visit.shown_secret(text),
        "invited": invited,
        **(form or _filled(account)),
    }
    if problems:
        return visit.refuse(_ONE, problems, **context)
    return visit.render(_ONE, 200 if refusal is None else 409, refusal=refusal, **context)


def _draft(form: Form) -> tuple[AccountDraft, list[Problem]]:
    problems: list[Problem] = []
    own = own_data(form, problems)
    return AccountDraft(form.text("name"), form.lines("contact_emails"), own.uid, own.metadata), problems


def _taken(error: Conflict) -> Problem:
    """Return a conflict as a problem with `uid`. A duplicate uid is the only possible conflict in account forms."""
    return Problem("uid", "taken", error.detail)


def _filled(account: Account) -> dict[str, str]:
    return {
        "name": account.name,
        "contact_emails": "\n".join(account.contact_emails),
        "uid": account.uid or "",
        "metadata": metadata_input(account.metadata),
    }


def _sent(form: Form) -> dict[str, str]:
    return {
        "name": form.text("name"),
        "contact_emails": form.raw("contact_emails"),
        "uid": form.text("uid"),
        "metadata": form.raw("metadata"),
    }


def _path(account_id: bytes) -> str:
    return f"/operator/accounts/{ids.prefixed(ids.ACCOUNT, account_id)}"


PAGES: Final = (
    operator_page("/accounts", listed),
    operator_page("/accounts/new", new),
    operator_form("/accounts/new", create),
    operator_page("/accounts/{account}", one),
    operator_form("/accounts/{account}", update),
    operator_form("/accounts/{account}/portal-links", create_link, back="/accounts/{account}"),
    operator_form("/accounts/{account}/portal-links/{link}/revoke", revoke_link, back="/accounts/{account}"),
    operator_form("/accounts/{account}/delete", delete, back="/accounts"),
)
