"""Estimates how many positions of a regular expression a linear-time engine follows at once.

A position is a character or a character class, counted once for each repetition. The time that the engine takes grows
with the number of positions.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"""(?P<wide>\.|\\[pP]\{[^}]*\}|\\[pPDSW]|\[\^\]?(?:\\.|[^\]\\])*\])
    |(?P<atom>\\[xu]\{[^}]*\}|\\.|\[\]?(?:\\.|[^\]\\])*\]|[^()|])
    |(?P<open>\()|(?P<close>\))|(?P<choice>\|)""",
    re.VERBOSE | re.DOTALL,
)
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{(?P<least>\d{1,9})(?P<comma>,(?P<most>\d{1,9})?)?\})[?+]?")
_WIDE_POSITIONS: Final = 3
"""Number of positions to count for an atom that can match multibyte characters."""


def active_positions(pattern: str) -> int:
    """Return an upper bound on the number of positions in a pattern that an engine can follow at once.

    An anchored pattern has one active position until its first repetition of variable length. After this repetition,
    every position can be active.
    """
    is_single = pattern.startswith("^") and "|" not in pattern
    sums, at = [1], 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        assert token is not None
        at = token.end()
        if token.lastgroup == "open":
            is_single = False
            sums.append(0)
            continue
        if token.lastgroup == "close" and len(sums) > 1:
            positions = sums.pop()
        else:
            positions = _WIDE_POSITIONS if token.lastgroup == "wide" else 1
        quantifier = _QUANTIFIER.match(pattern, at)
        if quantifier is None:
            sums[-1] += 0 if is_single else positions
            continue
        at = quantifier.end()
        is_varying = quantifier["least"] is None or quantifier["comma"] is not None
        if is_single:
            sums[-1] += positions if is_varying else 0
            is_single = not is_varying
        else:
            sums[-1] += positions * _times(quantifier)
    return sum(sums)


def _times(quantifier: re.Match[str]) -> int:
    if quantifier["least"] is None:
        return 1
    return max(1, int(quantifier["most"] or quantifier["least"]) + (quantifier["comma"] == ","))
