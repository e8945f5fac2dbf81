"""The code of receivers that pages show: the guide's, which its tests run."""

import shlex
from functools import cache
from importlib import resources
from typing import Final

FRAMEWORKS: Final = {"flask": "Flask", "fastapi": "FastAPI", "django": "Django", "python": "Plain Python"}


@cache
def snippet(framework: str) -> str:
    """The code of a receiver in one of FRAMEWORKS. It reads the secret from UPLIFT_WEBHOOK_SECRET."""
    folder = resources.files(__package__).joinpath("templates", "get_started", "snippets")
    return folder.joinpath(f"{framework}.txt").read_text(encoding="utf-8")


def all_snippets() -> list[tuple[str, str]]:
    """The titles of all frameworks, with their code."""
    return [(title, snippet(name)) for name, title in FRAMEWORKS.items()]


def variable_line(secret: str | None) -> str:
    """The line of a shell that tells a receiver the secret of an endpoint; without one, a place for it."""
    return f"export UPLIFT_WEBHOOK_SECRET={'whsec_…' if secret is None else shlex.quote(secret)}"
