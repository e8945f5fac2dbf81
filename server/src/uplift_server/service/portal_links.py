"""One-time links into the dashboard: for somebody of an account, from the operator's own site; and for operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from uplift_server.core import ids
from uplift_server.core.people.accounts import check_email
from uplift_server.core.people.people import LINK_TTL_MS, normalize_email
from uplift_server.core.problems import Problem
from uplift_server.core.security.rights import GUEST_ROLE_MAX, Role, check_role, parse_role
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.fields import UNSET, Unset, given_or_none
from uplift_server.service.idempotency import Repeat, check_repeat, request_of
from uplift_server.service.principals import Caller
from uplift_server.service.rejections import refusal, refuse
from uplift_server.store import audit, idempotency, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import Conflict
from uplift_server.store.records import Account, Link

_WHAT: Final = "portal link"
_OPERATORS: Final = "sign-in link"


@dataclass(frozen=True, slots=True)
class LinkDraft:
    """Whom a portal link is to let in."""

    email: str | Unset | None = UNSET
    role: str | Unset | None = UNSET

    def problems(self) -> list[Problem]:
        """What is wrong with it."""
        email, role = given_or_none(self.email), given_or_none(self.role)
        found = [None if email is None else check_email(email.strip()), None if role is None else check_role(role)]
        if email is None and self.granted() > GUEST_ROLE_MAX:
            text = f"A guest is nobody by name, and at most {GUEST_ROLE_MAX.text}. Give the owner's `email`, too."
            found.append(Problem("role", "role_not_for_guests", text))
        return [problem for problem in found if problem is not None]

    def whom(self) -> str | None:
        """The mail address, as people are told apart by it."""
        email = given_or_none(self.email)
        return None if email is None else normalize_email(email)

    def granted(self) -> Role:
        """The role of whoever is no member yet: the least where it names none."""
        role = given_or_none(self.role)
        return (None if role is None else parse_role(role)) or Role.MEMBER


@dataclass(frozen=True, slots=True)
class ShownLink:
    """A link for whoever is to open it."""

    url: str = field(repr=False)
    expires_at: int
    repeated: bool
    """Whether an earlier request made it; it is the same link, spent or not."""


class PortalLinks:
    """What operators do to let people in."""

    def __init__(self, context: ServiceContext, entrance: DashboardLinks) -> None:
        self._context = context
        self._entrance = entrance

    async def create(
        self,
        caller: Caller,
        account: str,
        draft: LinkDraft,
        *,
        repeat: Repeat | None = None,
        problems: Sequence[Problem] = (),
    ) -> ShownLink:
        """Make a link for somebody of an account. Raises NotFound."""
        caller.require_operator()
        owner = self._context.account_of(caller, account)
        refuse([*problems, *draft.problems(), *check_repeat(repeat)])
        request = request_of(repeat, owner.seq, _WHAT)
        link = Link(self._context.new_id(), owner.seq, draft.whom(), draft.granted(), None, self._ends_at())
        details = {"email": link.email, "role": link.role.text}
        return await self._context.carry_out(self._create(caller, link, owner, request, details))

    async def create_for_operator(
        self, caller: Caller, *, repeat: Repeat | None = None, problems: Sequence[Problem] = ()
    ) -> ShownLink:
        """Make a link that signs an operator in, for as long as the caller's own key is good."""
        caller.require_operator()
        refuse([*problems, *check_repeat(repeat)])
        request = request_of(repeat, idempotency.NO_ACCOUNT, _OPERATORS)
        link = Link(self._context.new_id(), None, None, Role.MEMBER, self._key_digest(caller), self._ends_at())
        return await self._context.carry_out(self._create(caller, link, None, request, {}))

    def _ends_at(self) -> int:
        return self._context.now() + LINK_TTL_MS

    def _key_digest(self, caller: Caller) -> bytes | None:
        holder_id = caller.principal.holder_id
        keys = self._context.cache.keys.values()
        return next((key.digest for key in keys if key.account_seq is None and key.id == holder_id), None)

    async def _create(
        self,
        caller: Caller,
        link: Link,
        owner: Account | None,
        request: idempotency.Request | None,
        details: Mapping[str, object],
    ) -> ShownLink:
        account_seq = None if owner is None else owner.seq
        entry = self._context.entry(caller, "link.created", ids.prefixed(ids.LINK, link.id), details, account_seq)

        def create(connection: Transaction) -> Link:
            audit.add(connection, entry)
            return sessions.add_link(connection, link)

        try:
            made, repeated = await self._context.database.write(
                lambda c: idempotency.once(
                    c,
                    request,
                    object_id=link.id,
                    now=entry.at,
                    create=lambda: create(c),
                    load=lambda earlier: sessions.get_link(c, earlier),
                )
            )
        except Conflict as error:
            raise refusal(error) from error
        return ShownLink(self._entrance.link_url(made.id), made.expires_at, repeated)
