"""International host names in their DNS form."""

import idna


def to_ascii(host: str) -> str:
    """Return the ASCII form of an international host name (UTS 46, as browsers do). Raises ValueError."""
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error
