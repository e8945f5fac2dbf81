"""Texts of others, made fit to be shown."""

import re


def printable(text: str, *, lines: bool = False) -> str:
    """A text that cannot steer a terminal, whoever wrote it; with `lines`, it may have several."""
    # The few characters that occur are looked at, not each place: texts have up to 256 KiB.
    steering = "".join(c for c in set(text) if not (c.isprintable() or (lines and c == "\n")))
    return re.sub(f"[{steering}]", "?", text) if steering else text
