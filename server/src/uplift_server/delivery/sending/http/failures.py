"""How a part of the sender says that an attempt cannot go on."""

import errno
import os
import re

from uplift_server.core.http.exchange import Failure
from uplift_server.core.limits import ERROR_CHARACTERS_MAX

# What the kernel says when the fault is on this side of the wire.
OWN_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE})
OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")

# Patterns in errors explain outcomes. This text must match none of them.
_SENT_TWICE = "the request was sent twice, because a reused connection ended without a response"


class AttemptFailed(Exception):
    """Ends an attempt before its request was written."""

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text


class FilesExhausted(AttemptFailed):
    """No file descriptor is left for the attempt. This is not the receiver's fault."""

    def __init__(self, what: str) -> None:
        super().__init__(Failure.EGRESS, f"{what}: too many open files")


def files_exhausted() -> bool:
    """Whether no further file descriptor can be opened now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in OUT_OF_FILES
    return False


def one_line(text: str) -> str:
    """`text` as it may stand in `Exchange.error`: one line, printable, bounded."""
    return _UNPRINTABLE.sub(" ", text).strip()[:ERROR_CHARACTERS_MAX]


def sent_twice(error: str | None) -> str:
    """An attempt's error with the note that its request was sent twice."""
    return _SENT_TWICE if error is None else f"{error[: ERROR_CHARACTERS_MAX - len(_SENT_TWICE) - 2]}; {_SENT_TWICE}"


def reason(error: OSError) -> str:
    """The system's words for an error, without numbers and file names."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def seconds(milliseconds: int) -> str:
    """A duration for people, such as `15 s`."""
    return f"{milliseconds / 1000:g} s"


def socket_name(address: str, port: int) -> str:
    """`address:port`, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
