"""Subjects of the event stream in NATS.

The subject of an emitter's message is `uplift.events.` followed by the account's ID or uid. The subject of a message
with events that the server has accepted begins with `uplift.events.$accepted.`. No ID or uid contains a `$`, so NATS
permissions can prevent emitters from publishing to the server's subject.
"""

from typing import Final, NamedTuple

EVENTS_STREAM: Final = "UPLIFT_EVENTS"
REJECTED_STREAM: Final = "UPLIFT_REJECTED"
EVENTS_SUBJECTS: Final = "uplift.events.>"
REJECTED_SUBJECTS: Final = "uplift.rejected.>"
_EVENTS: Final = "uplift.events."
_ACCEPTED: Final = "uplift.events.$accepted."
ACCEPTED_SUBJECT: Final = f"{_ACCEPTED}events"
"""The subject of the messages with events that the server has accepted."""
_REJECTED: Final = "uplift.rejected."
_ACCOUNT_CHARACTERS_MAX: Final = 256
"""More than the maximum length of an account's ID or uid. A subject of 4 KiB would end the connection to NATS."""


class EventSubject(NamedTuple):
    """The parsed subject of a message in the event stream."""

    account: str
    """The ID or uid of the account in the subject. Not an account if `is_accepted` is true."""
    is_accepted: bool
    """Whether the message has events that the server has accepted. Otherwise, an emitter published the message."""


def parse_subject(subject: str) -> EventSubject:
    """Parse a subject. The uid of an account may contain dots."""
    if subject.startswith(_ACCEPTED):
        return EventSubject(subject.removeprefix(_ACCEPTED), is_accepted=True)
    return EventSubject(subject.removeprefix(_EVENTS), is_accepted=False)


def rejected_subject(account: str) -> str:
    """Return the subject for rejected events. `account` is from the subject of a message, so it may be very long."""
    return _REJECTED + account[:_ACCOUNT_CHARACTERS_MAX].rstrip(".")
