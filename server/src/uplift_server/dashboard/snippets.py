"""Code samples of receivers. They are identical to the samples in the documentation, which the tests run."""

import shlex
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

FRAMEWORKS: Final = {"flask": "Flask", "fastapi": "FastAPI", "django": "Django", "python": "Plain Python"}
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
    "python": ("Call this function from your web server, and respond with the status code that it returns.", None),
}


@dataclass(frozen=True, slots=True)
class Receiver:
    """A code sample."""

    title: str
    code: str
    use: str
    """How to use the code."""
    command: str | None
    """The command that runs the code, or None if the reader's own web server runs it."""


@cache
def snippet(framework: str) -> str:
    """Return the code for one of FRAMEWORKS. The code reads the secret from UPLIFT_WEBHOOK_SECRET."""
    folder = resources.files(__package__).joinpath("templates", "get_started", "snippets")
    return folder.joinpath(f"{framework}.txt").read_text(encoding="utf-8")


def receiver(framework: str) -> Receiver:
    """Return the code sample for one of FRAMEWORKS."""
    return Receiver(FRAMEWORKS[framework], snippet(framework), *_RUNS[framework])


def all_receivers() -> list[Receiver]:
    """Return the code samples for all frameworks."""
    return [receiver(name) for name in FRAMEWORKS]


def variable_line(secret: str | None) -> str:
    """Return the shell command that sets the secret, or a placeholder, in the environment."""
    return f"export UPLIFT_WEBHOOK_SECRET={'whsec_…' if secret is None else shlex.quote(secret)}"
