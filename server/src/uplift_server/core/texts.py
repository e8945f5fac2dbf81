"""Texts of others, made fit to be shown."""


def printable(text: str, *, lines: bool = False) -> str:
    """A text that cannot steer a terminal, whoever wrote it; with `lines`, it may have several."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else "?" for c in text)
