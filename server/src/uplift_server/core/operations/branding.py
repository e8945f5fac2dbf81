"""The operator's brand on the dashboard: name, logo and accent colors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NAME: Final = "Uplift Webhooks"
NAME_CHARACTERS_MAX: Final = 60
LOGO_BYTES_MAX: Final = 64 * 1024
CONTRAST_MIN: Final = 4.5
"""Minimum contrast of text with its background (WCAG 2.2, level AA)."""
GROUNDS: Final[Mapping[str, str]] = {"accent": "#f2f4f7", "accent-dark": "#151b23"}
"""For each color of the brand: the background on the dashboard that has the lowest contrast with this color."""

_COLOR: Final = re.compile(r"#[0-9a-fA-F]{6}")
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Branding:
    """The operator's brand. The keys of `colors` are keys of GROUNDS.

    If a color is missing, the default color applies.
    """

    name: str
    logo_file: str | None
    colors: Mapping[str, str]


def parse_colors(text: str) -> dict[str, str]:
    """Parse a setting such as `accent=#0b5cad accent-dark=#6cb2ff`. Raises ValueError with the cause."""
    found: dict[str, str] = {}
    for each in text.split():
        name, _, color = each.partition("=")
        if name not in GROUNDS or name in found or not _COLOR.fullmatch(color):
            raise ValueError(f"contains an unknown, repeated or malformed entry: {each!r}")
        measured = contrast(color, GROUNDS[name])
        if measured < CONTRAST_MIN:
            lightness = "darker" if name == "accent" else "lighter"
            raise ValueError(
                f"has the color {color}, whose contrast with the page background is {measured:.1f}, below"
                f" {CONTRAST_MIN}: choose a {lightness} color"
            )
        found[name] = color.lower()
    if not found:
        raise ValueError("is empty")
    return found


def contrast(color: str, other: str) -> float:
    """Return the WCAG 2.2 contrast ratio of two colors (`#rrggbb`), from 1 to 21."""
    lighter, darker = sorted((_luminance(color), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def logo_type(content: bytes) -> str | None:
    """Return the media type of a logo, or None if it is neither PNG nor SVG."""
    if content.startswith(_PNG):
        return "image/png"
    return "image/svg+xml" if b"<svg" in content[:1024] else None


def _luminance(color: str) -> float:
    shares = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
