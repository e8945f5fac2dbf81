"""Display of text from outside."""

import re


def printable(text: str, *, lines: bool = False) -> str:
    """Replace characters that could control a terminal. Line feeds stay if `lines` is true."""
    # Check each distinct character once, because texts have up to 256 KiB.
    controls = "".join(c for c in set(text) if not (c.isprintable() or (lines and c == "\n")))
    return re.sub(f"[{controls}]", "?", text) if controls else text
