"""The name of this machine, which identifies its sessions for `uplift listen` and `uplift trigger`."""

import platform
from typing import Final

_CHARACTERS_MAX: Final = 200
"""Maximum length of a session's description in characters."""


def machine_name() -> str:
    """Return this machine's name for the description of a session. Empty if the system has no name."""
    return "".join(c for c in platform.node() if c.isprintable())[:_CHARACTERS_MAX]
