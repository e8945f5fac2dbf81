"""Safe display of untrusted text, and checks of characters."""

import re


def printable(text: str, *, lines: bool = False) -> str:
    """Return text with `?` in place of each character that could control a terminal.

    If `lines` is true, keep line feeds.
    """
    # Check each distinct character once, because texts can be up to 256 KiB long.
    controls = "".join(c for c in set(text) if not (c.isprintable() or (lines and c == "\n")))
    return re.sub(f"[{controls}]", "?", text) if controls else text


def is_visible_ascii(text: str) -> bool:
    """Return whether the text contains only printable ASCII characters and no spaces."""
    return all("!" <= character <= "~" for character in text)
