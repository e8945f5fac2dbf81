"""Detects settings that contain example values: names reserved for documentation, placeholders, and keys that are not
random."""

import base64
import re
from typing import Final

_EXAMPLES: Final = re.compile(
    # RFC 2606 and RFC 5737 reserve these names and addresses for documentation.
    r"(?<![\w-])(?:[\w-]+\.)*(?:example\.(?:com|net|org)|[\w-]+\.example)(?![\w-])"
    r"|(?<![\d.])(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}(?![\d.])|(?<![\w:])2001:db8:[0-9a-f:]*",
    re.IGNORECASE,
)
_PLACEHOLDERS: Final = re.compile(
    r"change[-_ ]?me|replace[-_ ]?me|placeholder|your[-_]|…|\.\.\.|:password@", re.IGNORECASE
)
_RANDOM_BYTES_LEAST: Final = 12
"""Minimum number of different bytes in a random key. A random key of 32 bytes usually has about 30."""


def example_in(text: str) -> str | None:
    """Return the first example in a setting's value: a host name or an IP address that is reserved for documentation.

    Return None if the value contains no example.
    """
    found = _EXAMPLES.search(text)
    return None if found is None else found[0]


def is_placeholder(secret: str) -> bool:
    """Return whether a secret, or a URL with a password, contains a placeholder."""
    return _PLACEHOLDERS.search(secret) is not None


def is_guessable_key(encoded: str) -> bool:
    """Return whether a valid encryption key (base64) is readable text, or repeats a few bytes.

    Random keys have neither property.
    """
    key = base64.b64decode(encoded)
    return all(0x20 <= byte < 0x7F for byte in key) or len(set(key)) < _RANDOM_BYTES_LEAST
