"""Attempt failures that occur before the server has sent the request, and their error messages."""

import errno
import os
import re

from uplift_server.core.http.exchange import Failure
from uplift_server.core.limits import ERROR_CHARACTERS_MAX

# Errors that this machine causes, not the receiver.
OWN_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EADDRINUSE})
OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE})

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")

# `core.deliveries.causes` searches error texts for patterns. This text must not match any pattern.
_SENT_TWICE = "the request was sent twice, because a reused connection closed without a response"


class AttemptFailed(Exception):
    """The attempt failed before the server sent its request."""

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.text = text


class FilesExhausted(AttemptFailed):
    """No file descriptor is left for the attempt. The receiver did not cause this failure."""

    def __init__(self, what: str) -> None:
        super().__init__(Failure.EGRESS, f"{what}: too many open files")


def files_exhausted() -> bool:
    """Return whether the process has no file descriptor left."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in OUT_OF_FILES
    return False


def one_line(text: str) -> str:
    """Return `text` as one printable line of at most ERROR_CHARACTERS_MAX characters, for `Exchange.error`."""
    return _UNPRINTABLE.sub(" ", text).strip()[:ERROR_CHARACTERS_MAX]


def sent_twice(error: str | None) -> str:
    """Return an attempt's error (if any) with a note that the server sent the request twice."""
    return _SENT_TWICE if error is None else f"{error[: ERROR_CHARACTERS_MAX - len(_SENT_TWICE) - 2]}; {_SENT_TWICE}"


def reason(error: OSError) -> str:
    """Return the operating system's text for an error, without the error number and the file name."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def seconds(milliseconds: int) -> str:
    """Return a duration as readable text, such as `15 s`."""
    return f"{milliseconds / 1000:g} s"


def socket_name(address: str, port: int) -> str:
    """Return `address:port`, with an IPv6 address in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
