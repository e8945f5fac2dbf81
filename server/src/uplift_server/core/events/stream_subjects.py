"""Subjects of the event stream in NATS.

The subject of an emitter's message is `uplift.events.` followed by the account's ID or uid. The subject of a message
with events that the server has accepted begins with `uplift.events.$accepted.`. No ID or uid contains a `$`, so NATS
permissions can prevent emitters from publishing to the server's subject.
"""

from typing import Final

EVENTS_STREAM: Final = "UPLIFT_EVENTS"
REJECTED_STREAM: Final = "UPLIFT_REJECTED"
EVENTS_SUBJECTS: Final = "uplift.events.>"
REJECTED_SUBJECTS: Final = "uplift.rejected.>"
_EVENTS: Final = "uplift.events."
ACCEPTED: Final = "$accepted"
"""Replaces the account in the subject of a rejected message from the server."""
_ACCEPTED_PREFIX: Final = f"{_EVENTS}{ACCEPTED}."
ACCEPTED_SUBJECT: Final = f"{_ACCEPTED_PREFIX}events"
"""The subject of the messages with events that the server has accepted."""
_REJECTED: Final = "uplift.rejected."
_ACCOUNT_CHARACTERS_MAX: Final = 256
"""More than the maximum length of an account's ID or uid. A subject of 4 KiB would end the connection to NATS."""


def emitter_account(subject: str) -> str | None:
    """Return the account ID or uid in the subject of an emitter's message.

    Return None if the message has events that the server has accepted. A uid may contain dots.
    """
    return None if subject.startswith(_ACCEPTED_PREFIX) else subject.removeprefix(_EVENTS)


def rejected_subject(account: str) -> str:
    """Return the subject for rejected events. `account` is an ID, a uid or `ACCEPTED`, and may be very long."""
    return _REJECTED + account[:_ACCOUNT_CHARACTERS_MAX].rstrip(".")
