"""Parsers for the dashboard's brand settings. The parsers raise InvalidValue."""

from pathlib import Path

from uplift_server.config.parsers import InvalidValue
from uplift_server.core.operations.branding import LOGO_BYTES_MAX, NAME_CHARACTERS_MAX, logo_type, parse_colors


def brand_name(text: str) -> str:
    """Check the name of the brand, and return the name without white space at its ends."""
    name = text.strip()
    if not name or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise InvalidValue("is not a valid name", f"use 1 to {NAME_CHARACTERS_MAX} printable characters")
    return name


def brand_logo(text: str) -> str:
    """Check the path of the logo, a PNG or SVG file."""
    try:
        with Path(text).open("rb") as file:
            content = file.read(LOGO_BYTES_MAX + 1)
    except (OSError, ValueError):
        content = b""
    if len(content) > LOGO_BYTES_MAX or logo_type(content) is None:
        raise InvalidValue("is not a readable logo", "use the path of a PNG or SVG file of at most 64 KiB")
    return text


def brand_colors(text: str) -> str:
    """Check the accent colors of the brand, such as `accent=#0b5cad accent-dark=#6cb2ff`."""
    try:
        parse_colors(text)
    except ValueError as error:
        raise InvalidValue(
            str(error), "use the form accent=#0b5cad accent-dark=#6cb2ff with your own colors"
        ) from error
    return text
