"""The command `uplift` for integrators: `pip install './receiver[cli]'` in a checkout.

It uses only the server's HTTP API, and needs packages that the library does not.
"""

import sys

_NEEDED = frozenset({"typer", "rich", "websockets", "tomli"})


def run() -> None:
    """The entry point. Ctrl-C ends it quietly, even during imports, which take most of a short run."""
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _run() -> None:
    try:
        from uplift_webhooks.cli.main import start  # noqa: PLC0415 - what it needs may be missing
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _NEEDED:
            raise
        print(f"Error: the command uplift needs the package {missing}, which is not installed", file=sys.stderr)
        print(
            "Remedy: install uplift-webhooks with its extra cli, in a checkout: pip install './receiver[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    start()
