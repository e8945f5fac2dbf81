"""The error for an address or port on which the server cannot listen."""

import errno
import socket
from typing import Final

from uplift_server.config import Config, ConfigError, ConfigProblem
from uplift_webhooks.cli.kit.errors import CliError, ExitCode

_UNPRIVILEGED: Final = 1024
_PASSING: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, socket.EAI_AGAIN)


def cannot_listen(config: Config, error: OSError) -> ConfigProblem:
    """Return the setting that prevents the server from listening, with the reason and how to fix it."""
    reason = error.strerror or str(error)
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigProblem(
            "UPLIFT_HOST",
            f"is {config.host}, which is not an address of this machine ({reason})",
            "set UPLIFT_HOST to an address of this machine, such as 127.0.0.1, or to 0.0.0.0 for all addresses",
        )
    if error.errno == errno.EACCES and config.port < _UNPRIVILEGED:
        return ConfigProblem(
            "UPLIFT_PORT",
            f"is {config.port}, which the server's user is not allowed to use ({reason})",
            f"set UPLIFT_PORT to {_UNPRIVILEGED} or higher",
        )
    return ConfigProblem(
        "UPLIFT_HOST and UPLIFT_PORT",
        f"are {config.host}:{config.port}, but the server cannot listen on this address ({reason})",
        f"set UPLIFT_PORT to a free port, or stop the program that uses port {config.port}; to find it: lsof -i"
        f" :{config.port}",
    )


def more_exactly(config: Config, error: ConfigError) -> ConfigError | CliError:
    """Return a more precise error if the server could not listen. Otherwise, return the given error.

    The precise error is marked as temporary if a retry can succeed. For example, a machine that is starting may not
    have all its IP addresses yet.
    """
    cause = error.__cause__
    if not isinstance(cause, OSError) or not any("UPLIFT_PORT" in each.name for each in error.problems):
        return error
    problem = cannot_listen(config, cause)
    if cause.errno in _PASSING:
        return CliError(f"{problem.name} {problem.reason}", problem.remedy, ExitCode.TRY_LATER)
    return ConfigError(problem)
