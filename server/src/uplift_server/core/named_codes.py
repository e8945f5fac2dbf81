"""Enumerations that the database stores as numbers and the API shows as names."""

from enum import IntEnum


class NamedCode(IntEnum):
    """An enumeration member that has a number for the database and a name for users."""

    text: str
    """The name in lower case, such as `server_error`.

    The name is cached, because every log line contains several names.
    """

    def __init__(self, _number: int) -> None:
        self.text = self._name_.lower()
