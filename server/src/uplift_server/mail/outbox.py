"""The outbox: hands owed notices to the mail server, and keeps at it for three days.

A notice is marked as sent in a transaction of its own right after the mail server accepted it. What is killed between
the two, or loses the server's answer, is sent once more: as the same message, with the same Message-ID.
"""

import asyncio
import contextlib
from typing import Final, Protocol

import structlog

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.mail_settings import Mailbox
from uplift_server.core.people.notifications import EXPIRES_AFTER_MS, GIVE_UP_AFTER_MS, Notification, retry_at
from uplift_server.mail.emails import compose_email
from uplift_server.mail.failures import MailNotSent
from uplift_server.mail.messages import message
from uplift_server.mail.smtp import MailConnection, SmtpServer
from uplift_server.store import outbox
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.outbox import EmailResult

BITE: Final = 20
LOOK_EVERY_MS: Final = 2_000
STOP_SECONDS: Final = 1.0
"""How long a stop waits for the mail under way."""
_log = structlog.get_logger()


class Clock(Protocol):
    """The wall clock, and waiting by it."""

    def now_ms(self) -> int:
        """Unix time in ms."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Until the event is set or the time is over, whichever comes first."""


class SingletonJobs(Protocol):
    """The jobs that one process does for all."""

    def holds(self, job: SingletonJob) -> bool:
        """Whether this process does a job now."""


class Outbox:
    """Sends what is due, one mail after the other.

    `public_url` is what the mails' links begin with; the secret parts of some follow from `link_key`.
    """

    def __init__(
        self,
        database: Database,
        jobs: SingletonJobs,
        clock: Clock,
        relay: SmtpServer,
        *,
        sender: Mailbox,
        public_url: str,
        link_key: bytes,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._relay = relay
        self._sender = sender
        self._public_url = public_url
        self._link_key = link_key
        self._stopping = asyncio.Event()
        self._unsettled: list[EmailResult] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Send nothing more; what is under way has a second to finish, else it is due at the next start."""
        self._stopping.set()
        self._relay.hurry(STOP_SECONDS)
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        """Until stopped."""
        while not self._stopping.is_set():
            try:
                # What became of mails is written down by whoever sent them, whose duty it may be by now.
                await self._settle()
                sent = self._jobs.holds(SingletonJob.OUTBOX) and await self.send_due()
            except Unavailable:
                sent = False
            except Exception:
                # Mail is the least of what this process does: a defect in it stops nothing else.
                _log.exception("a defect in the outbox; it goes on")
                sent = False
            if not sent:
                await self._clock.wait(self._stopping, LOOK_EVERY_MS)
        with contextlib.suppress(Unavailable):
            await self._settle()

    async def send_due(self) -> bool:
        """Try one bite of what is due; whether there was any. Raises Unavailable."""
        # Nothing is sent while what was sent cannot be written down: it would go out again.
        await self._settle()
        now = self._clock.now_ms()
        owed = await self._database.read(lambda c: outbox.due(c, now=now, limit=BITE))
        if not owed:
            return False
        try:
            async with self._relay.connected() as connection:
                for notice in owed:
                    if (
                        self._stopping.is_set()
                        or not self._jobs.holds(SingletonJob.OUTBOX)
                        or not await self._send(connection, notice)
                    ):
                        break
        except MailNotSent as failure:
            for notice in owed:
                self._put_off(notice, failure)
            self._tell(failure, len(owed))
            await self._settle()
        return True

    async def _send(self, connection: MailConnection, notice: Notification) -> bool:
        """Send one; whether the connection can take another."""
        try:
            await connection.send(self._sender.address, notice.recipient, self._message(notice))
        except MailNotSent as failure:
            self._put_off(notice, failure)
            self._tell(failure, 1)
            connected = not failure.disconnected
        else:
            self._unsettled.append(EmailResult(notice.seq, notice.attempts_made + 1, sent_at=self._clock.now_ms()))
            _log.info("a notice was mailed", notice=notice.id.hex(), kind=notice.kind.text)
            connected = True
        await self._settle()
        return connected

    def _message(self, notice: Notification) -> bytes:
        try:
            return message(
                compose_email(notice, self._public_url, self._link_key),
                sender=self._sender,
                recipient=notice.recipient,
                message_id=notice.id.hex(),
                created_at=notice.created_at,
            )
        except Exception as defect:
            # Those behind it shall not wait for it.
            _log.exception("a defect: a notice cannot be put into words", notice=notice.id.hex(), kind=notice.kind.text)
            cause = f"a defect: it cannot be put into words ({type(defect).__name__})"
            raise MailNotSent(cause, "report the log", for_good=True, disconnected=False) from defect

    def _put_off(self, notice: Notification, failure: MailNotSent) -> None:
        """Owe it again later, unless that is of no use."""
        if self._stopping.is_set():
            # It had no fair chance, and is due as before at the next start.
            return
        made = notice.attempts_made + 1
        expires_after_ms = EXPIRES_AFTER_MS.get(notice.kind, GIVE_UP_AFTER_MS)
        due_at = retry_at(
            made, created_at=notice.created_at, now_ms=self._clock.now_ms(), expires_after_ms=expires_after_ms
        )
        if failure.for_good:
            due_at = None
        self._unsettled.append(EmailResult(notice.seq, made, due_at=due_at, last_error=failure.cause))
        if due_at is None:
            _log.error(
                "a notice is given up: its recipient was not told",
                notice=notice.id.hex(),
                kind=notice.kind.text,
                attempts=made,
                cause=failure.cause,
                remedy=failure.remedy,
            )

    def _tell(self, failure: MailNotSent, count: int) -> None:
        if not failure.for_good and not self._stopping.is_set():
            _log.warning("mail could not be sent", notices=count, cause=failure.cause, remedy=failure.remedy)

    async def _settle(self) -> None:
        """Write down what became of notices. Raises Unavailable; it is kept then."""
        if self._unsettled:
            results = tuple(self._unsettled)
            await self._database.write(lambda c: outbox.settle(c, results))
            self._unsettled = []
