"""The code of receivers that pages show: the guide's, which its tests run."""

import shlex
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Final

FRAMEWORKS: Final = {"flask": "Flask", "fastapi": "FastAPI", "django": "Django", "python": "Plain Python"}
_RUNS: Final = {
    "flask": ("Save it as app.py, and run it where UPLIFT_WEBHOOK_SECRET is set:", "flask --app app run --port 5000"),
    "fastapi": (
        "Save it as app.py, and run it where UPLIFT_WEBHOOK_SECRET is set and the package uvicorn is installed:",
        "uvicorn app:app --port 5000",
    ),
    "django": (
        "Put it into your project's urls.py, and run that where UPLIFT_WEBHOOK_SECRET is set:",
        "python manage.py runserver 5000",
    ),
    "python": ("Call it from whatever serves your requests, and answer with the status that it returns.", None),
}


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver as pages show it."""

    title: str
    code: str
    use: str
    """Where the code goes, and what to do then."""
    command: str | None
    """Runs it on one's own machine; None where the framework of the visitor does."""


@cache
def snippet(framework: str) -> str:
    """The code of a receiver in one of FRAMEWORKS. It reads the secret from UPLIFT_WEBHOOK_SECRET."""
    folder = resources.files(__package__).joinpath("templates", "get_started", "snippets")
    return folder.joinpath(f"{framework}.txt").read_text(encoding="utf-8")


def receiver(framework: str) -> Receiver:
    """A receiver in one of FRAMEWORKS, and how to run it."""
    return Receiver(FRAMEWORKS[framework], snippet(framework), *_RUNS[framework])


def all_receivers() -> list[Receiver]:
    """One in each."""
    return [receiver(name) for name in FRAMEWORKS]


def variable_line(secret: str | None) -> str:
    """The line of a shell that tells a receiver the secret of an endpoint; without one, a place for it."""
    return f"export UPLIFT_WEBHOOK_SECRET={'whsec_…' if secret is None else shlex.quote(secret)}"
