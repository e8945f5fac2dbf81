"""Use cases that create, read, update and delete accounts, including their contacts."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from uplift_server.core import ids
from uplift_server.core.limits import CONTACT_EMAILS_MAX
from uplift_server.core.own_data import check_metadata, check_uid, metadata_of, metadata_text
from uplift_server.core.people.accounts import check_email, check_name
from uplift_server.core.people.audit import difference
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import Right
from uplift_server.core.security.scopes import AccountsScope, Scope
from uplift_server.service.context import Listing, ServiceContext
from uplift_server.service.fields import UNSET, Unset, given, given_or, given_or_none, values_after
from uplift_server.service.idempotency import IdempotencyKey, check_idempotency_key, create_once, idempotent_request
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import not_found, own_uid_problems, require_valid
from uplift_server.service.versions import Versions, require_version
from uplift_server.store import accounts, audit, changes, idempotency, outbox
from uplift_server.store.contract import Transaction
from uplift_server.store.records import Account, Page

_KIND = "account"
_AUDITED: Final = ("name", "contact_emails", "uid")
"""The fields whose values the audit log contains. Metadata is excluded, because it can contain secrets."""


@dataclass(frozen=True, slots=True)
class AccountDraft:
    """The account fields in a request. An update does not change the fields that are absent."""

    name: str | Unset = UNSET
    contact_emails: Sequence[str] | Unset = UNSET
    uid: str | Unset | None = UNSET
    metadata: Mapping[str, str | None] | Unset | None = field(default=UNSET, repr=False)
    merges: bool = False
    """Whether `metadata` contains only the keys to change. If so, a value of None removes the key."""

    def problems(self) -> list[Problem | None]:
        """Return the problems with the account fields in the request."""
        found: list[Problem | None] = [] if isinstance(self.name, Unset) else [check_name(self.name)]
        emails = given_or(self.contact_emails, ())
        if len(emails) > CONTACT_EMAILS_MAX:
            text = f"The list has {len(emails)} contacts. Use at most {CONTACT_EMAILS_MAX}."
            found.append(Problem("contact_emails", "too_many", text))
        found.extend(
            check_email(email, f"contact_emails.{index}") for index, email in enumerate(emails[:CONTACT_EMAILS_MAX])
        )
        uid = given_or_none(self.uid)
        if uid is not None:
            found.append(check_uid(uid))
        found.extend(check_metadata(self.metadata_after({})))
        return found

    def metadata_after(self, stored: Mapping[str, str]) -> dict[str, str]:
        """Return the metadata that the account has after the request. `stored` is its current metadata."""
        return values_after(stored, self.metadata, merges=self.merges)

    @property
    def is_for_members(self) -> bool:
        """Whether the request contains only fields that members can update."""
        return all(isinstance(each, Unset) for each in (self.name, self.uid, self.metadata))


class Accounts:
    """Creates, reads, updates and deletes accounts.

    Members can read only their own account, and can update only its contacts.
    """

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    async def create(
        self,
        caller: Caller,
        draft: AccountDraft,
        *,
        idempotency_key: IdempotencyKey | None = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[Account, bool]:
        """Create an account.

        Return the account, and whether an earlier request with the same idempotency key created it. `problems` contains
        the problems that were found in the request before this call.
        """
        caller.require_all_accounts(AccountsScope.ACCOUNTS_WRITE)
        require_valid([*problems, *draft.problems(), check_idempotency_key(idempotency_key)])
        return await self._context.run_shielded(self._create(caller, draft, idempotency_key))

    async def page(self, caller: Caller, listing: Listing, *, problems: Sequence[Problem] = ()) -> Page[Account]:
        """Return a page of accounts."""
        caller.require_all_accounts(AccountsScope.ACCOUNTS_READ, reads=True)
        request = self._context.page_request(listing, 1, problems)
        return await self._context.database.read(lambda c: accounts.page(c, request))

    async def get(self, caller: Caller, account: str) -> Account:
        """Return an account by public ID or uid. Raises NotFound."""
        caller.require_all_accounts(AccountsScope.ACCOUNTS_READ, reads=True)
        account_id = self._id(account)
        found = await self._context.database.read(lambda c: accounts.get(c, account_id))
        if found is None:
            raise not_found(_KIND, account)
        return found

    def own(self, caller: Caller) -> Account:
        """Return the account that owns the caller's key.

        For an operator or service key, return the account that the request names. Raises AccountRequired.
        """
        if caller.principal.account_seq is None:
            caller.require_all_accounts(AccountsScope.ACCOUNTS_READ, reads=True)
        return self._context.cache.accounts[caller.require_account()]

    async def version(self, caller: Caller) -> Hashable:
        """Return a value that changes when the content of the account's dashboard pages changes. Raises Unavailable.

        The dashboard reads the value every second, so the queries must be cheap. The queries cover events, audit log
        entries, test attempts, statistics, replays and listen sessions. Attempts that are not tests need no query,
        because they change the cached health of their endpoint, which is part of the value.
        """
        caller.require(Scope.EVENTS_READ)
        account_seq = caller.require_account()
        stored = await self._context.database.read(
            lambda c: (
                changes.newest_seqs(c, account_seq),
                changes.hourly_counts(c, account_seq),
                changes.unfinished_replays(c, account_seq),
                changes.listen_sessions_seen(c, account_seq),
            )
        )
        live = self._context.cache.endpoints_of(account_seq)
        return stored, hash(tuple((each.seq, each.health, each.record.updated_at) for each in live))

    async def update(
        self,
        caller: Caller,
        account: str,
        draft: AccountDraft,
        *,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> Account:
        """Update an account. Members can update only the contacts. Raises NotFound or PreconditionFailed."""
        if caller.principal.role is None:
            caller.require_all_accounts(AccountsScope.ACCOUNTS_WRITE)
        else:
            caller.require_right(Right.ACCOUNT_MANAGE)
        account_id = self._context.find_account(caller, account).id
        if not draft.is_for_members:
            caller.require_all_accounts(AccountsScope.ACCOUNTS_WRITE)
        require_valid([*problems, *draft.problems()])
        return await self._context.run_shielded(self._update(caller, account_id, draft, versions))

    async def put(
        self,
        caller: Caller,
        account: str,
        draft: AccountDraft,
        *,
        versions: Versions = None,
        problems: Sequence[Problem] = (),
    ) -> tuple[Account, bool]:
        """Create the account with this uid, or update the account with this uid or ID.

        Return the account, and whether the request created it. If `account` is an ID, the account must exist. Raises
        NotFound or PreconditionFailed.
        """
        caller.require_all_accounts(AccountsScope.ACCOUNTS_WRITE)
        if ids.parse_prefixed(ids.ACCOUNT, account) is not None:
            return await self.update(caller, account, draft, versions=versions, problems=problems), False
        require_valid([*problems, *own_uid_problems(account, draft.uid), *draft.problems()])
        return await self._context.run_shielded(self._put(caller, account, replace(draft, uid=account), versions))

    async def delete(self, caller: Caller, account: str) -> None:
        """Delete an account with its keys and endpoints. Raises NotFound."""
        caller.require_all_accounts(AccountsScope.ACCOUNTS_WRITE)
        await self._context.run_shielded(self._delete(caller, self._id(account)))

    def _id(self, account: str) -> bytes:
        """Return the ID of the account with this public ID or uid. Raises NotFound for an unknown uid.

        Does not check whether the account with this public ID exists.
        """
        account_id = ids.parse_prefixed(ids.ACCOUNT, account)
        if account_id is not None:
            return account_id
        found = self._context.cache.find_account(account)
        if found is None:
            raise not_found(_KIND, account)
        return found.id

    async def _create(
        self, caller: Caller, draft: AccountDraft, idempotency_key: IdempotencyKey | None
    ) -> tuple[Account, bool]:
        now, account_id = self._context.now(), self._context.new_id()
        request = idempotent_request(idempotency_key, idempotency.NO_ACCOUNT, _KIND)

        def create(connection: Transaction) -> Account:
            return self._insert(connection, caller, account_id, draft, now)

        account, repeated = await self._context.write(create_once(request, account_id, now, create, accounts.get))
        if not repeated:
            self._context.cache.put_account(account)
        return account, repeated

    def _insert(
        self, connection: Transaction, caller: Caller, account_id: bytes, draft: AccountDraft, now: int
    ) -> Account:
        account = accounts.create(
            connection,
            account_id=account_id,
            name=given(draft.name),
            contact_emails=tuple(given_or(draft.contact_emails, ())),
            uid=given_or_none(draft.uid),
            metadata=metadata_text(draft.metadata_after({})),
            now=now,
        )
        details = {"name": account.name} | ({} if account.uid is None else {"uid": account.uid})
        self._audit(connection, caller, "account.created", account, details)
        return account

    async def _update(self, caller: Caller, account_id: bytes, draft: AccountDraft, versions: Versions) -> Account:
        now = self._context.now()

        def update(connection: Transaction) -> Account | None:
            if not isinstance(draft.uid, Unset):
                accounts.lock_uids(connection)
            return self._change(connection, caller, account_id, draft, versions, now)

        changed = await self._context.write(update)
        if changed is None:
            raise not_found(_KIND, ids.prefixed(ids.ACCOUNT, account_id))
        self._context.cache.put_account(changed)
        return changed

    def _change(
        self,
        connection: Transaction,
        caller: Caller,
        account_id: bytes,
        draft: AccountDraft,
        versions: Versions,
        now: int,
    ) -> Account | None:
        details: dict[str, object] = {}
        removed: set[str] = set()
        added: set[str] = set()

        def change(stored: Account) -> Account:
            require_version(stored, versions)
            metadata = draft.metadata_after(metadata_of(stored.metadata))
            require_valid(check_metadata(metadata))
            changed = replace(
                stored,
                name=given_or(draft.name, stored.name),
                contact_emails=tuple(given_or(draft.contact_emails, stored.contact_emails)),
                uid=given_or(draft.uid, stored.uid),
                metadata=metadata_text(metadata),
                updated_at=now,
            )
            details.update(difference(_fields(stored), _fields(changed), shown=_AUDITED))
            removed.update({*stored.contact_emails} - {*changed.contact_emails})
            added.update({*changed.contact_emails} - {*stored.contact_emails})
            return changed if details else stored

        changed = accounts.update(connection, account_id, change)
        if changed is not None and details:
            self._audit(connection, caller, "account.changed", changed, details)
        if changed is not None and removed:
            # Otherwise, the server would disable an endpoint although no contact received the warning.
            outbox.hand_over_unsent(
                connection,
                changed.seq,
                removed=removed,
                added=added,
                new_id=lambda: ids.uuid7(now, self._context.random_bytes(ids.RANDOM_BYTES)),
                now=now,
            )
        return changed

    async def _put(self, caller: Caller, uid: str, draft: AccountDraft, versions: Versions) -> tuple[Account, bool]:
        now, account_id = self._context.now(), self._context.new_id()

        def put(connection: Transaction) -> tuple[Account | None, bool]:
            accounts.lock_uids(connection)
            stored = accounts.get_by_uid(connection, uid)
            if stored is None:
                require_version(None, versions)
                return self._insert(connection, caller, account_id, draft, now), True
            return self._change(connection, caller, stored.id, draft, versions, now), False

        account, is_new = await self._context.write(put)
        if account is None:
            raise not_found(_KIND, uid)
        self._context.cache.put_account(account)
        return account, is_new

    async def _delete(self, caller: Caller, account_id: bytes) -> None:
        now = self._context.now()

        def delete(connection: Transaction) -> accounts.Deleted | None:
            deleted = accounts.delete(connection, account_id, now=now)
            if deleted is not None:
                counts = {"keys": len(deleted.key_digests), "endpoints": len(deleted.endpoint_seqs)}
                details = {"name": deleted.account.name, **counts}
                self._audit(connection, caller, "account.deleted", deleted.account, details)
                outbox.delete_unsent(connection, deleted.account.seq)
            return deleted

        deleted = await self._context.database.write(delete)
        if deleted is None:
            raise not_found(_KIND, ids.prefixed(ids.ACCOUNT, account_id))
        cache = self._context.cache
        for digest in deleted.key_digests:
            cache.drop_key(digest)
        for endpoint_seq in deleted.endpoint_seqs:
            cache.drop_endpoint(endpoint_seq)
            self._context.engine.endpoints.deleted(endpoint_seq)
        cache.drop_account(deleted.account.seq)
        self._context.engine.relay.end_streams_of_account(deleted.account.seq)

    def _audit(
        self, connection: Transaction, caller: Caller, action: str, account: Account, details: Mapping[str, object]
    ) -> None:
        subject = ids.prefixed(ids.ACCOUNT, account.id)
        audit.add(connection, self._context.audit_entry(caller, action, subject, details, account.seq))


def _fields(account: Account) -> dict[str, object]:
    return {name: getattr(account, name) for name in (*_AUDITED, "metadata")}
