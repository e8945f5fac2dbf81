"""A server that cannot listen exits with `TRY_LATER` after a temporary error. A permanent error names the setting."""

import errno
import socket

import pytest

from uplift_server.cli.listening import more_exactly
from uplift_server.config import ConfigError, ConfigProblem, load
from uplift_webhooks.cli.kit.errors import CliError, ExitCode


def listen_error(error: OSError) -> ConfigError | CliError:
    """Return the error of a server that cannot listen on port 80."""
    failure = ConfigError(ConfigProblem("UPLIFT_HOST and UPLIFT_PORT", "cannot be listened on", ""))
    failure.__cause__ = error
    return more_exactly(load({"UPLIFT_HOST": "hooks.example", "UPLIFT_PORT": "80"}), failure)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (
            OSError(errno.EADDRINUSE, "Address already in use"),
            "UPLIFT_HOST and UPLIFT_PORT are hooks.example:80, but the server cannot listen on this address",
        ),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "UPLIFT_HOST is hooks.example"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "UPLIFT_HOST is hooks.example"),
    ],
)
def test_a_temporary_listen_error_is_retried(error: OSError, cause: str) -> None:
    failure = listen_error(error)
    assert isinstance(failure, CliError)
    assert failure.code is ExitCode.TRY_LATER
    assert failure.cause.startswith(cause)


@pytest.mark.parametrize(
    ("error", "setting"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "UPLIFT_PORT"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "UPLIFT_HOST"),
    ],
)
def test_a_permanent_error_names_its_setting(error: OSError, setting: str) -> None:
    failure = listen_error(error)
    assert isinstance(failure, ConfigError)
    assert [each.name for each in failure.problems] == [setting]


def test_another_start_error_stays_unchanged() -> None:
    failure = ConfigError(ConfigProblem("UPLIFT_SECRET_KEY", "is missing", ""))
    assert more_exactly(load({}), failure) is failure
