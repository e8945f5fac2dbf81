"""The outbox: sends notifications to the mail server, and retries for up to three days.

After the mail server accepts a message, a transaction marks the notification as sent. If the process crashes before the
transaction, or if the server's response is lost, the outbox resends the message. The resent message has the same
Message-ID.
"""

import asyncio
import contextlib
from typing import Final, Protocol

import structlog

from uplift_server.core.operations.singleton_jobs import SingletonJob
from uplift_server.core.people.mail_settings import Mailbox
from uplift_server.core.people.notifications import (
    EXPIRES_AFTER_MS,
    GIVE_UP_AFTER_MS,
    Notification,
    at_sending,
    retry_at,
)
from uplift_server.mail.emails import compose_email
from uplift_server.mail.failures import MailNotSent
from uplift_server.mail.messages import message
from uplift_server.mail.smtp import MailConnection, SmtpServer
from uplift_server.store import outbox
from uplift_server.store.contract import Database
from uplift_server.store.errors import Unavailable
from uplift_server.store.outbox import EmailResult

BATCH_SIZE: Final = 20
POLL_INTERVAL_MS: Final = 2_000
STOP_SECONDS: Final = 1.0
"""The maximum time that `stop` waits until the current email is sent, in seconds."""
_log = structlog.get_logger()


class Clock(Protocol):
    """A wall clock that can also wait for an `asyncio.Event`."""

    def now_ms(self) -> int:
        """Return the Unix time in ms."""

    async def wait(self, event: asyncio.Event, timeout_ms: float) -> None:
        """Wait until the event is set or the timeout has passed."""


class SingletonJobs(Protocol):
    """The interface that reports which singleton jobs this process holds."""

    def holds(self, job: SingletonJob) -> bool:
        """Return whether this process holds a singleton job now."""


class Outbox:
    """Sends due emails one after another.

    `public_url` is the base URL of links. `link_key` is the key from which the secret parts of links are derived.
    """

    def __init__(
        self,
        database: Database,
        jobs: SingletonJobs,
        clock: Clock,
        mail_server: SmtpServer,
        *,
        sender: Mailbox,
        public_url: str,
        link_key: bytes,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._clock = clock
        self._mail_server = mail_server
        self._sender = sender
        self._public_url = public_url
        self._link_key = link_key
        self._stopping = asyncio.Event()
        self._unsettled: list[EmailResult] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that sends due emails."""
        self._task = asyncio.create_task(self._run(), name="outbox")

    async def stop(self) -> None:
        """Stop sending emails.

        If the current email takes longer than STOP_SECONDS, the outbox resends it after the next start.
        """
        self._stopping.set()
        self._mail_server.shorten_timeout(STOP_SECONDS)
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        """Send due emails until `stop` is called."""
        while not self._stopping.is_set():
            try:
                # Store results even after another process has taken over the job.
                await self._settle()
                sent = self._jobs.holds(SingletonJob.OUTBOX) and await self.send_due()
            except Unavailable:
                sent = False
            except Exception:
                # A bug in the email code must not stop the process.
                _log.exception("email outbox failed")
                sent = False
            if not sent:
                await self._clock.wait(self._stopping, POLL_INTERVAL_MS)
        with contextlib.suppress(Unavailable):
            await self._settle()

    async def send_due(self) -> bool:
        """Send one batch of due emails. Return whether any emails were due. Raises Unavailable."""
        # If results cannot be stored, send nothing. Otherwise, emails would be sent twice.
        await self._settle()
        now = self._clock.now_ms()
        due = await self._database.read(lambda c: outbox.due(c, now=now, limit=BATCH_SIZE))
        if not due:
            return False
        try:
            async with self._mail_server.connected() as connection:
                for notification in due:
                    if self._stopping.is_set() or not self._jobs.holds(SingletonJob.OUTBOX):
                        break
                    if not await self._send(connection, notification):
                        break
        except MailNotSent as failure:
            for notification in due:
                self._schedule_retry(notification, failure)
            self._log_failure(failure, len(due))
            await self._settle()
        return True

    async def _send(self, connection: MailConnection, notification: Notification) -> bool:
        """Send one email. Return whether the connection can send another email."""
        try:
            await connection.send(self._sender.address, notification.recipient, self._message(notification))
        except MailNotSent as failure:
            self._schedule_retry(notification, failure)
            self._log_failure(failure, 1)
            connected = not failure.disconnected
        else:
            self._unsettled.append(
                EmailResult(
                    notification.seq, notification.attempts_made + 1, sent_at=self._clock.now_ms(), id=notification.id
                )
            )
            _log.info("email sent", notification=notification.id.hex(), kind=notification.kind.text)
            connected = True
        await self._settle()
        return connected

    def _message(self, notification: Notification) -> bytes:
        try:
            return message(
                compose_email(at_sending(notification, self._clock.now_ms()), self._public_url, self._link_key),
                sender=self._sender,
                recipient=notification.recipient,
                message_id=notification.id.hex(),
                created_at=notification.created_at,
            )
        except Exception as defect:
            # An email that cannot be rendered must not block later emails.
            _log.exception("email rendering failed", notification=notification.id.hex(), kind=notification.kind.text)
            cause = f"internal error: the server could not render the email ({type(defect).__name__})"
            raise MailNotSent(cause, "report the logged error", permanent=True, disconnected=False) from defect

    def _schedule_retry(self, notification: Notification, failure: MailNotSent) -> None:
        """Record a failed attempt to send an email. Schedule the next attempt, unless the failure is permanent.

        Do nothing if the outbox is stopping.
        """
        if self._stopping.is_set():
            # The server stopped during the attempt. The email stays due, and the attempt is not counted.
            return
        attempts = notification.attempts_made + 1
        expires_after_ms = EXPIRES_AFTER_MS.get(notification.kind, GIVE_UP_AFTER_MS)
        due_at = retry_at(
            attempts, created_at=notification.created_at, now_ms=self._clock.now_ms(), expires_after_ms=expires_after_ms
        )
        if failure.permanent:
            due_at = None
        self._unsettled.append(
            EmailResult(notification.seq, attempts, due_at=due_at, last_error=failure.cause, id=notification.id)
        )
        if due_at is None:
            _log.error(
                "email failed permanently",
                notification=notification.id.hex(),
                kind=notification.kind.text,
                attempts=attempts,
                cause=failure.cause,
                how_to_fix=failure.remedy,
            )

    def _log_failure(self, failure: MailNotSent, count: int) -> None:
        if not failure.permanent and not self._stopping.is_set():
            _log.warning("email not sent", emails=count, cause=failure.cause, how_to_fix=failure.remedy)

    async def _settle(self) -> None:
        """Store the results of the attempts to send emails.

        If the store fails, raise Unavailable and keep the results for the next call.
        """
        if self._unsettled:
            results = tuple(self._unsettled)
            await self._database.write(lambda c: outbox.settle(c, results))
            self._unsettled = []
