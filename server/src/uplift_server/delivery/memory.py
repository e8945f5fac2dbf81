"""How many bytes of bodies the engine holds, so that a burst or a slow disk fills a budget and not the machine."""

from uplift_server.core.limits import MEMORY_BODY_BYTES_MAX


class BodyBudget:
    """Counts bodies that wait in memory: being stored, or in a lane."""

    __slots__ = ("bytes_held", "bytes_max")

    def __init__(self, bytes_max: int = MEMORY_BODY_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.bytes_held = 0

    @property
    def exhausted(self) -> bool:
        """Whether nothing more should be taken."""
        return self.bytes_held >= self.bytes_max
