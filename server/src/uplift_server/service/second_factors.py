"""Second factors at sign-in: a code from an authenticator app, or a recovery code, after the correct password."""

from typing import Final, NamedTuple

from uplift_server.core.people.notifications import NotificationKind, SecondFactorChange
from uplift_server.core.security import totp
from uplift_server.core.security.tokens import password_mark
from uplift_server.service.context import ServiceContext
from uplift_server.service.errors import ServiceError
from uplift_server.store import outbox, second_factors
from uplift_server.store.contract import Transaction
from uplift_server.store.encryption import TOTP_SECRET, Cipher
from uplift_server.store.records import Person, SecondFactor

PENDING_MS: Final = 5 * 60_000
"""The maximum time between the password and the code during a sign-in, in ms."""
APP: Final = "app"
RECOVERY_CODE: Final = "recovery code"
WRONG_CODE: Final = (
    "The code is not correct, or was already used. Enter the next code from your app, or an unused recovery code."
    " If the app's codes do not work, correct the device's clock."
)


class PendingSignIn(NamedTuple):
    """A sign-in with the correct password that still needs a code. The server does not store this sign-in."""

    person_id: bytes
    mark: str
    """The fingerprint of the password hash. If the password changes, the sign-in expires."""
    by: str
    """The name of the sign-in method in the audit log."""
    expires_at: int


class SecondFactorRequired(ServiceError):
    """The password is correct, and the person must enter a code to begin a session."""

    code = "unauthorized"

    def __init__(self, pending: PendingSignIn) -> None:
        super().__init__("Enter the code from your authenticator app.")
        self.pending = pending


class SecondFactors:
    """Checks and stores second factors within transactions that have locked the person's record."""

    def __init__(self, context: ServiceContext, cipher: Cipher, *, sends_email: bool) -> None:
        self._context = context
        self._cipher = cipher
        self._sends_email = sends_email

    def pending(self, connection: Transaction, person: Person, by: str, now: int) -> PendingSignIn | None:
        """Return the sign-in that a person must complete with a code, or None if the person has no second factor."""
        if person.password_hash is None or second_factors.get(connection, person.id) is None:
            return None
        return PendingSignIn(person.id, password_mark(person.password_hash), by, now + PENDING_MS)

    def use(self, connection: Transaction, person: Person, code: str, now: int) -> str | None:
        """Check a code, and mark it as used, so that it does not work again.

        Return the kind of the code, APP or RECOVERY_CODE. Return None if the code is wrong.
        """
        factor = second_factors.get(connection, person.id)
        if factor is None:
            return None
        secret = bytes.fromhex(self._cipher.decrypt(factor.totp_secret, person.id, TOTP_SECRET))
        step = totp.matching_step(secret, code, now, after=factor.last_step)
        if step is not None:
            second_factors.use_step(connection, person.id, step)
            return APP
        if not second_factors.use_recovery_code(connection, person.id, totp.recovery_digest(person.id, code)):
            return None
        self.notify(connection, person, SecondFactorChange.RECOVERY_CODE_USED, now)
        return RECOVERY_CODE

    def store(self, connection: Transaction, person: Person, secret: bytes, step: int, now: int) -> None:
        """Store a second factor for a person who has none.

        `step` is the time step of the code that confirmed the second factor.
        """
        encrypted = self._cipher.encrypt(secret.hex(), person.id, TOTP_SECRET)
        second_factors.create(connection, SecondFactor(person.id, encrypted, step, now))

    def new_recovery_codes(self, connection: Transaction, person: Person) -> list[str]:
        """Replace a person's recovery codes, and return the new codes. The database stores only their digests."""
        random = [self._context.random_bytes(totp.RECOVERY_BYTES) for _ in range(totp.RECOVERY_CODES)]
        codes = [totp.recovery_code(each) for each in random]
        digests = [totp.recovery_digest(person.id, each) for each in codes]
        second_factors.replace_recovery_codes(connection, person.id, digests)
        return codes

    def notify(self, connection: Transaction, person: Person, change: SecondFactorChange, now: int) -> None:
        """Queue an email that informs the person about a change to the second factor."""
        if person.email is None or not self._sends_email:
            return
        outbox.add(
            connection,
            NotificationKind.SECOND_FACTOR_CHANGED,
            account_seq=None,
            endpoint_seq=None,
            recipients=[(self._context.new_id(), person.email)],
            facts={"change": change.value, "at": now},
            now=now,
        )
