"""This machine's name, by which `uplift listen` tells its sessions from others' and `uplift trigger` finds them."""

import platform
from typing import Final

_CHARACTERS_MAX: Final = 200
"""As many as the description of a session may have."""


def machine_name() -> str:
    """As a session's description has it; empty where the system gives none."""
    return "".join(c for c in platform.node() if c.isprintable())[:_CHARACTERS_MAX]
