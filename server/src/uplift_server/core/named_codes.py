"""Numbers inside, names outside: what the store keeps and what people read."""

from enum import IntEnum


class NamedCode(IntEnum):
    """An enumeration whose members have a number, which the store keeps, and a name for the outside world."""

    text: str
    """The member's name in lowercase, such as `server_error`; made once, since every log line has several."""

    def __init__(self, _number: int) -> None:
        self.text = self._name_.lower()
