"""The `uplift` command, which is for integrators. The extra `cli` installs its dependencies.

The command uses only the server's HTTP API.
"""

import sys

_NEEDED = frozenset({"typer", "rich", "websockets", "tomli"})


def run() -> None:
    """Run the program. Ctrl-C exits without a traceback, even during imports."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    try:
        from uplift_webhooks.cli.main import start  # noqa: PLC0415 - the extra may not be installed
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        print(f"Error: the command uplift requires the package {missing}, which is not installed", file=sys.stderr)
        print(
            "How to fix: pip install --extra-index-url https://SERVER/packages/simple/ 'uplift-webhooks[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    start()
