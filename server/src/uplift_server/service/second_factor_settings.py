"""A person's own second factor: turn it on and off, and create recovery codes."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from uplift_server.core.people.notifications import SecondFactorChange
from uplift_server.core.problems import Problem
from uplift_server.core.security import totp
from uplift_server.service.context import ServiceContext
from uplift_server.service.credentials import Credentials
from uplift_server.service.errors import Conflict, Forbidden, Invalid, Unauthorized
from uplift_server.service.person_audit import audit_person
from uplift_server.service.second_factors import WRONG_CODE, SecondFactors
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.visitors import Visitor
from uplift_server.store import people, second_factors, sessions
from uplift_server.store.contract import Transaction
from uplift_server.store.errors import StoreError
from uplift_server.store.records import Person

T = TypeVar("T")

_MISSING: Final = (
    "You have no password, and a second factor protects only sign-in with a password. Set a password first."
)
_IS_ON: Final = "Your second factor is already on. Turn it off to use another app."
_IS_OFF: Final = "Your second factor is off. Turn it on first."
_CHANGED: Final = "Another request changed your profile. Try again."
_WRONG_PROOF: Final = "The password is not correct. Enter it again."
_WRONG_FIRST_CODE: Final = (
    "The code is not correct. Enter the code that the app shows now. If it does not work, correct the device's clock."
)


class SecondFactorState(NamedTuple):
    """The state of a second factor that is turned on."""

    since: int
    """When the person turned the second factor on (Unix ms)."""
    recovery_codes: int
    """The number of unused recovery codes."""


class SecondFactorSettings:
    """Changes the visitor's own second factor. Each change requires the password and a code."""

    def __init__(
        self, context: ServiceContext, credentials: Credentials, factors: SecondFactors, limits: SignInLimits
    ) -> None:
        self._context = context
        self._credentials = credentials
        self._factors = factors
        self._limits = limits

    def new_secret(self) -> bytes:
        """Return a random key for an authenticator app. Only `turn_on` stores the key."""
        return self._context.random_bytes(totp.SECRET_BYTES)

    async def state(self, person: Person) -> SecondFactorState | None:
        """Return the state of the visitor's second factor, or None if it is off."""

        def read(connection: Transaction) -> SecondFactorState | None:
            factor = second_factors.get(connection, person.id)
            if factor is None:
                return None
            return SecondFactorState(factor.created_at, second_factors.count_recovery_codes(connection, person.id))

        return await self._context.database.read(read)

    async def turn_on(
        self, visitor: Visitor, secret: bytes, code: str, password: str, *, address: str | None
    ) -> list[str]:
        """Store the authenticator app's key, end all other sessions, and return the recovery codes.

        Raises Invalid (`code`, `password`), Forbidden, RateLimited, Busy, or Conflict if a second factor is on.
        """
        person, now = await self._verified(visitor, password, address), self._context.now()
        step = totp.matching_step(secret, code, now, after=0)
        if step is None:
            raise Invalid([Problem("code", "code_wrong", _WRONG_FIRST_CODE)])

        def turn_on(connection: Transaction) -> list[str]:
            _lock(connection, person)
            if second_factors.get(connection, person.id) is not None:
                raise Conflict(_IS_ON)
            self._factors.store(connection, person, secret, step, now)
            sessions.end_all_of_person(connection, person.seq, except_digest=visitor.session_id)
            audit_person(connection, person, "member.second_factor_turned_on", {}, now, address)
            self._factors.notify(connection, person, SecondFactorChange.TURNED_ON, now)
            return self._factors.new_recovery_codes(connection, person)

        return await self._context.run_shielded(self._context.database.write(turn_on))

    async def turn_off(self, visitor: Visitor, code: str, password: str, *, address: str | None) -> None:
        """Delete the authenticator app's key and the recovery codes.

        Raises Invalid (`code`, `password`), Forbidden, RateLimited, Busy, or Conflict if no second factor is on.
        """
        now = self._context.now()

        def turn_off(connection: Transaction, person: Person) -> None:
            second_factors.delete(connection, person.id)
            audit_person(connection, person, "member.second_factor_turned_off", {}, now, address)
            self._factors.notify(connection, person, SecondFactorChange.TURNED_OFF, now)

        await self._change(visitor, code, password, address, turn_off)

    async def new_recovery_codes(self, visitor: Visitor, code: str, password: str, *, address: str | None) -> list[str]:
        """Replace the recovery codes, and return the new codes.

        Raises Invalid (`code`, `password`), Forbidden, RateLimited, Busy, or Conflict if no second factor is on.
        """
        now = self._context.now()

        def replace(connection: Transaction, person: Person) -> list[str]:
            audit_person(connection, person, "member.recovery_codes_created", {}, now, address)
            return self._factors.new_recovery_codes(connection, person)

        return await self._change(visitor, code, password, address, replace)

    async def _change(
        self,
        visitor: Visitor,
        code: str,
        password: str,
        address: str | None,
        change: Callable[[Transaction, Person], T],
    ) -> T:
        """Check the password. Then, in one transaction, check the code, mark the code as used, and call `change`."""
        person, now = await self._verified(visitor, password, address), self._context.now()
        attempt = self._limits.begin_code(now, person_id=person.id, address=address)

        def use(connection: Transaction) -> T:
            _lock(connection, person)
            if second_factors.get(connection, person.id) is None:
                raise Conflict(_IS_OFF)
            if self._factors.use(connection, person, code, now) is None:
                raise Invalid([Problem("code", "code_wrong", WRONG_CODE)])
            return change(connection, person)

        try:
            changed = await self._context.run_shielded(self._context.database.write(use))
        except (Conflict, StoreError):
            attempt.cancel()
            raise
        attempt.succeed()
        return changed

    async def _verified(self, visitor: Visitor, password: str, address: str | None) -> Person:
        """Check the visitor's password, and return the person."""
        person = visitor.person
        if person is None or person.email is None or person.password_hash is None:
            raise Forbidden(_MISSING)
        try:
            return await self._credentials.verify_password(person.email, password, address, visitor=visitor)
        except Unauthorized as error:
            raise Invalid([Problem("password", "password_wrong", _WRONG_PROOF)]) from error


def _lock(connection: Transaction, person: Person) -> None:
    """Lock the person's record. Raises Conflict if another request has changed the password or deleted the person."""
    found = people.get(connection, person.seq, lock=True)
    if found is None or (found.id, found.password_hash) != (person.id, person.password_hash):
        raise Conflict(_CHANGED)
