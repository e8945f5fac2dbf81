"""International host names in the form DNS knows."""

import idna


def to_ascii(host: str) -> str:
    """The ASCII form of an international host name, read as browsers read it (UTS 46). ValueError if there is none."""
    try:
        return idna.encode(host, uts46=True, transitional=False).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(str(error)) from error
