"""Command errors. Each error states the cause and how to fix it, and has a stable exit code."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `uplift` and `uplift-server`. They never change."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALLOWED = 3
    NOT_FOUND = 4
    TRY_LATER = 75
    INTERRUPTED = 130


class CliError(Exception):
    """A command failed. `cause` and `remedy` (how to fix it) are texts for users, without secrets."""

    def __init__(self, cause: str, remedy: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.code = code
