"""Accounts: operators' business, but for their contacts, which are their own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.people.accounts import check_email, check_name
from uplift_server.core.people.audit import difference
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given, given_or
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, parse_id, refusal, refuse
from uplift_server.store import accounts, audit, idempotency
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Account, Page

_WHAT = "account"
_FIELDS: Final = ("name", "contact_emails")
"""What may be changed."""


@dataclass(frozen=True, slots=True)
class AccountDraft:
    """What is said of an account; on a change, what is not said stays."""

    name: str | Unset = UNSET
    contact_emails: Sequence[str] | Unset = UNSET

    def problems(self) -> list[Problem]:
        """What is wrong with it."""
        found = [] if isinstance(self.name, Unset) else [check_name(self.name)]
        emails = given_or(self.contact_emails, ())
        if len(emails) > CONTACT_EMAILS_MAX:
            text = f"An account has at most {CONTACT_EMAILS_MAX} contacts, these are {len(emails)}. Remove some."
            found.append(Problem("contact_emails", "too_many", text))
        found.extend(
            check_email(email, f"contact_emails.{index}") for index, email in enumerate(emails[:CONTACT_EMAILS_MAX])
        )
        return [problem for problem in found if problem is not None]


class Accounts:
    """What operators do with accounts, and members with their own."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def create(
        self, caller: Caller, draft: AccountDraft, *, repeat: Repeat | None = None, problems: Sequence[Problem] = ()
    ) -> tuple[Account, bool]:
        """Create an account; whether this repeats an earlier request. `problems` are those found before."""
        caller.require_operator()
        refuse([*problems, *draft.problems(), *check_repeat(repeat)])
        return await self._context.carry_out(self._create(caller, draft, repeat))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[Account]:
        """Accounts, newest first."""
        caller.require_operator()
        before = self._context.place(listing, 1, problems)
        return await self._context.database.read(lambda c: accounts.page(c, limit=listing.limit, before=before))

    async def get(self, caller: Caller, account: str) -> Account:
        """One account. Raises NotFound."""
        caller.require_operator()
        account_id = parse_id(ids.ACCOUNT, account, _WHAT)
        found = await self._context.database.read(lambda c: accounts.get(c, account_id))
        if found is None:
            raise not_found(_WHAT, account)
        return found

    async def update(
        self, caller: Caller, account: str, draft: AccountDraft, *, problems: Sequence[Problem] = ()
    ) -> Account:
        """Change an account's particulars; its name is for operators. Raises NotFound."""
        caller.require_right(Right.ACCOUNT_MANAGE)
        self._context.account_of(caller, account)
        if not isinstance(draft.name, Unset):
            caller.require_operator()
        refuse([*problems, *draft.problems()])
        return await self._context.carry_out(self._update(caller, account, draft))

    async def delete(self, caller: Caller, account: str) -> None:
        """Delete an account with its keys and endpoints. Raises NotFound."""
        caller.require_operator()
        await self._context.carry_out(self._delete(caller, account))

    async def _create(self, caller: Caller, draft: AccountDraft, repeat: Repeat | None) -> tuple[Account, bool]:
        now, account_id = self._context.now(), self._context.new_id()
        name, emails = given(draft.name), tuple(given_or(draft.contact_emails, ()))
        request = request_of(repeat, idempotency.NO_ACCOUNT, _WHAT)

        def create(connection: Transaction) -> Account:
            account = accounts.create(connection, account_id=account_id, name=name, contact_emails=emails, now=now)
            self._note(connection, caller, "account.created", account, {"name": name})
            return account

        try:
            account, repeated = await self._context.database.write(
                lambda c: idempotency.once(
                    c,
                    request,
                    object_id=account_id,
                    now=now,
                    create=lambda: create(c),
                    load=lambda earlier: accounts.get(c, earlier),
                )
            )
        except Conflict as error:
            raise refusal(error) from error
        if not repeated:
            self._context.cache.put_account(account)
        return account, repeated

    async def _update(self, caller: Caller, account: str, draft: AccountDraft) -> Account:
        now, account_id = self._context.now(), parse_id(ids.ACCOUNT, account, _WHAT)

        def update(connection: Transaction) -> Account | None:
            details: dict[str, object] = {}

            def change(stored: Account) -> Account:
                changed = replace(
                    stored,
                    name=given_or(draft.name, stored.name),
                    contact_emails=tuple(given_or(draft.contact_emails, stored.contact_emails)),
                    updated_at=now,
                )
                details.update(difference(_fields(stored), _fields(changed), shown=_FIELDS))
                return changed

            changed = accounts.update(connection, account_id, change)
            if changed is not None and details:
                self._note(connection, caller, "account.changed", changed, details)
            return changed

        changed = await self._context.database.write(update)
        if changed is None:
            raise not_found(_WHAT, account)
        self._context.cache.put_account(changed)
        return changed

    async def _delete(self, caller: Caller, account: str) -> None:
        now, account_id = self._context.now(), parse_id(ids.ACCOUNT, account, _WHAT)

        def delete(connection: Transaction) -> accounts.Deleted | None:
            deleted = accounts.delete(connection, account_id, now=now)
            if deleted is not None:
                counts = {"keys": len(deleted.key_digests), "endpoints": len(deleted.endpoint_seqs)}
                details = {"name": deleted.account.name, **counts}
                self._note(connection, caller, "account.deleted", deleted.account, details)
            return deleted

        deleted = await self._context.database.write(delete)
        if deleted is None:
            raise not_found(_WHAT, account)
        cache = self._context.cache
        for digest in deleted.key_digests:
            cache.drop_key(digest)
        for endpoint_seq in deleted.endpoint_seqs:
            cache.drop_endpoint(endpoint_seq)
            self._context.engine.endpoints.deleted(endpoint_seq)
        cache.drop_account(deleted.account.seq)
        self._context.engine.relay.end_of_account(deleted.account.seq)

    def _note(
        self, connection: Transaction, caller: Caller, action: str, account: Account, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.ACCOUNT, account.id)
        audit.add(connection, self._context.entry(caller, action, subject, details, account.seq))


def _fields(account: Account) -> dict[str, object]:
    return {name: getattr(account, name) for name in _FIELDS}
