"""How a command fails: one line of cause, one of remedy, and an exit code that scripts can rely on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit code says. Never changes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ALLOWED = 3
    NOT_FOUND = 4
    TRY_LATER = 75
    INTERRUPTED = 130


class CliError(Exception):
    """Why a command could not do what it was asked for."""

    def __init__(self, cause: str, remedy: str, code: ExitCode = ExitCode.FAILED) -> None:
        """Both sentences are for people and hold no secret."""
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy
        self.code = code
