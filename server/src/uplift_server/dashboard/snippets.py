"""Code samples for receivers, with an endpoint's path and port.

Each sample is identical to a documentation sample, or contains the functions of a documentation sample. Tests run the
samples.
"""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final
from urllib.parse import urlsplit

FRAMEWORKS: Final = {
    "flask": "Flask",
    "fastapi": "FastAPI",
    "django": "Django",
    "node": "Node",
    "go": "Go",
    "java": "Java",
    "python": "Plain Python",
}
EXTRAS: Final = {"flask": "flask", "fastapi": "fastapi", "django": "django", "python": None}
"""The extra of the Python library's package for each Python framework. None means that the framework needs no extra."""
_RUNS: Final = {
    "flask": ("Save the code as app.py and run it with UPLIFT_WEBHOOK_SECRET set:", "flask --app app run --port 5000"),
    "fastapi": (
        "Save the code as app.py, install uvicorn, and run the code with UPLIFT_WEBHOOK_SECRET set:",
        "uvicorn app:app --port 5000",
    ),
    "django": (
        "Add the code to the urls.py file of your project, and run the project with UPLIFT_WEBHOOK_SECRET set:",
        "python manage.py runserver 5000",
    ),
    "node": ("Save the code as receiver.js and run it with UPLIFT_WEBHOOK_SECRET set:", "node receiver.js"),
    "go": ("Save the code as receiver.go and run it with UPLIFT_WEBHOOK_SECRET set:", "go run receiver.go"),
    "java": (
        "Save the code as Receiver.java and run it with UPLIFT_WEBHOOK_SECRET set (Java 11 or later):",
        "java Receiver.java",
    ),
    "python": ("Call this function from your web server, and respond with the status code that it returns.", None),
}
_PATH: Final = "/webhook"
_PORT: Final = "5000"
# Matches paths without characters that have a special meaning in a language or framework, such as `{` in routes.
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._~-]*")


@dataclass(frozen=True, slots=True)
class Receiver:
    """A code sample of a receiver, with instructions."""

    title: str
    code: str
    use: str
    """How to use the code, as a sentence."""
    command: str | None
    """The command that runs the code, or None if the reader's own web server calls the code."""
    forwarded_port: str | None
    """The port to which the reader's HTTPS server or proxy must forward requests, or None if the reader needs no proxy.
    """


@cache
def snippet(framework: str) -> str:
    """Return the code for one of FRAMEWORKS. The code reads the secret from UPLIFT_WEBHOOK_SECRET."""
    folder = resources.files(__package__).joinpath("templates", "get_started", "snippets")
    return folder.joinpath(f"{framework}.txt").read_text(encoding="utf-8")


def receiver(framework: str, url: str | None = None) -> Receiver:
    """Return the code sample for one of FRAMEWORKS. The sample uses the path and port in an endpoint's URL.

    If `url` is None, the sample uses the default path and port.
    """
    path, port = (_PATH, None) if url is None else _path_and_port(url)
    code = snippet(framework).replace(f'"{_PATH}"', f'"{path}"')
    if framework == "django":
        code = code.replace(f'"{_PATH[1:]}"', f'"{path[1:]}"')
    use, command = _RUNS[framework]
    if port is not None:
        code = code.replace(_PORT, port)
        command = command and command.replace(_PORT, port)
    forwarded = None if port or url is None or command is None else _PORT
    return Receiver(FRAMEWORKS[framework], code, use, command, forwarded)


def all_receivers(url: str) -> list[Receiver]:
    """Return the code samples for all frameworks. The samples use the path and port in an endpoint's URL."""
    return [receiver(name, url) for name in FRAMEWORKS]


def variable_line(secret: str | None) -> str:
    """Return the shell command that sets the environment variable for the secret.

    If `secret` is None, the command contains a placeholder.
    """
    return f"export UPLIFT_WEBHOOK_SECRET={'whsec_…' if secret is None else shlex.quote(secret)}"


def _path_and_port(url: str) -> tuple[str, str | None]:
    """Return the path and port of a URL for a code sample.

    Return the default path if the URL's path does not match `_PLAIN_PATH`. The port is None unless the URL is an `http`
    URL that contains a port.
    """
    parts = urlsplit(url)
    path = parts.path or "/"
    port = str(parts.port) if parts.scheme.lower() == "http" and parts.port else None
    return path if _PLAIN_PATH.fullmatch(path) else _PATH, port
