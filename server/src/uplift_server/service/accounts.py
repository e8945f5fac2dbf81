"""Accounts: operators' business."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from uplift_server.core import ids
from uplift_server.core.accounts import check_email, check_name
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.problems import Problem
from uplift_server.service.means import (
    UNSET,
    Listing,
    Means,
    Repeat,
    Unset,
    check_repeat,
    given,
    given_or,
    not_found,
    parse_id,
    place,
    refusal,
    refuse,
    request_of,
)
from uplift_server.service.principals import Caller
from uplift_server.store import accounts, idempotency
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Account, Page

_WHAT = "account"


@dataclass(frozen=True, slots=True)
class AccountDraft:
    """What an operator says of an account; on a change, what is not said stays."""

    name: str | Unset = UNSET
    contact_emails: Sequence[str] | Unset = UNSET

    def problems(self) -> list[Problem]:
        """What is wrong with it."""
        found = [] if isinstance(self.name, Unset) else [check_name(self.name)]
        emails = given_or(self.contact_emails, ())
        if len(emails) > CONTACT_EMAILS_MAX:
            text = f"An account has at most {CONTACT_EMAILS_MAX} contacts, these are {len(emails)}. Remove some."
            found.append(Problem("contact_emails", "too_many", text))
        found.extend(check_email(email, f"contact_emails.{index}") for index, email in enumerate(emails))
        return [problem for problem in found if problem is not None]


class Accounts:
    """What operators do with accounts."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def create(
        self, caller: Caller, draft: AccountDraft, *, repeat: Repeat | None = None, problems: Sequence[Problem] = ()
    ) -> tuple[Account, bool]:
        """Create an account; whether this repeats an earlier request. `problems` are those found before."""
        caller.require_operator()
        refuse([*problems, *draft.problems(), *check_repeat(repeat)])
        return await self._means.carry_out(self._create(draft, repeat))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[Account]:
        """Accounts, newest first."""
        caller.require_operator()
        before = place(listing, 1, problems)
        return await self._means.database.read(lambda c: accounts.page(c, limit=listing.limit, before=before))

    async def get(self, caller: Caller, account: str) -> Account:
        """One account. Raises NotFound."""
        caller.require_operator()
        account_id = parse_id(ids.ACCOUNT, account, _WHAT)
        found = await self._means.database.read(lambda c: accounts.get(c, account_id))
        if found is None:
            raise not_found(_WHAT, account)
        return found

    async def update(
        self, caller: Caller, account: str, draft: AccountDraft, *, problems: Sequence[Problem] = ()
    ) -> Account:
        """Change an account's particulars. Raises NotFound."""
        caller.require_operator()
        await self.get(caller, account)
        refuse([*problems, *draft.problems()])
        return await self._means.carry_out(self._update(account, draft))

    async def delete(self, caller: Caller, account: str) -> None:
        """Delete an account with its keys and endpoints. Raises NotFound."""
        caller.require_operator()
        await self._means.carry_out(self._delete(account))

    async def _create(self, draft: AccountDraft, repeat: Repeat | None) -> tuple[Account, bool]:
        now, account_id = self._means.now(), self._means.new_id()
        name, emails = given(draft.name), tuple(given_or(draft.contact_emails, ()))
        request = request_of(repeat, idempotency.NO_ACCOUNT, _WHAT)
        try:
            account, repeated = await self._means.database.write(
                lambda c: idempotency.once(
                    c,
                    request,
                    object_id=account_id,
                    now=now,
                    create=lambda: accounts.create(c, account_id=account_id, name=name, contact_emails=emails, now=now),
                    load=lambda earlier: accounts.get(c, earlier),
                )
            )
        except Conflict as error:
            raise refusal(error) from error
        if not repeated:
            self._means.directory.put_account(account)
        return account, repeated

    async def _update(self, account: str, draft: AccountDraft) -> Account:
        now = self._means.now()

        def change(stored: Account) -> Account:
            return replace(
                stored,
                name=given_or(draft.name, stored.name),
                contact_emails=tuple(given_or(draft.contact_emails, stored.contact_emails)),
                updated_at=now,
            )

        account_id = parse_id(ids.ACCOUNT, account, _WHAT)
        changed = await self._means.database.write(lambda c: accounts.update(c, account_id, change))
        if changed is None:
            raise not_found(_WHAT, account)
        self._means.directory.put_account(changed)
        return changed

    async def _delete(self, account: str) -> None:
        now, account_id = self._means.now(), parse_id(ids.ACCOUNT, account, _WHAT)
        deleted = await self._means.database.write(lambda c: accounts.delete(c, account_id, now=now))
        if deleted is None:
            raise not_found(_WHAT, account)
        directory = self._means.directory
        for digest in deleted.key_digests:
            directory.drop_key(digest)
        for endpoint_seq in deleted.endpoint_seqs:
            directory.drop_endpoint(endpoint_seq)
            self._means.engine.forget(endpoint_seq)
        directory.drop_account(deleted.account.seq)
