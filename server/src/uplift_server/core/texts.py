"""Texts of others, made fit to be shown."""


def printable(text: str, *, lines: bool = False) -> str:
    """A text that cannot steer a terminal, whoever wrote it; with `lines`, it may have several."""
    if (text.replace("\n", "") if lines else text).isprintable():
        # Nearly all are, and of a body of 256 KiB looking at each character takes 20 ms.
        return text
    return "".join(c if c.isprintable() or (lines and c == "\n") else "?" for c in text)
