"""What one process does for another: a slot that is taken for its test lapses if the test does not come."""

from types import SimpleNamespace
from typing import Any

from uplift_server.delivery.cluster.notifier import Question
from uplift_server.delivery.cluster.remote_requests import TEST_COMES_WITHIN_MS, Errand, Errands

from .world import VirtualClock

ENDPOINT = 7


class Slots:
    """Trials, of which the slots alone are counted."""

    def __init__(self) -> None:
        self.taken = 0

    def begin(self, _endpoint_seq: int) -> None:
        self.taken += 1

    def abandon(self, _endpoint_seq: int) -> None:
        self.taken -= 1


class Process:
    """The process that is asked, and its clock."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.slots = Slots()
        self._post = SimpleNamespace(answer=None)
        unused: Any = None
        directory: Any = SimpleNamespace(owns=lambda _endpoint_seq: True, endpoints={ENDPOINT: None})
        self.errands = Errands(unused, directory, self.clock, self._post, unused, self.slots)  # type: ignore[arg-type]

    async def ask(self, what: Errand) -> Any:
        return await self._post.answer(Question(what, ENDPOINT))  # type: ignore[misc]


async def test_a_slot_lapses_if_the_test_does_not_come() -> None:
    process = Process()
    await process.ask(Errand.BEGIN_TEST)
    assert process.slots.taken == 1
    process.clock.fire()
    assert process.slots.taken == 0
    assert await process.ask(Errand.SEND_TEST) is None


async def test_the_lapse_of_an_earlier_test_takes_no_slot_of_a_later_one() -> None:
    process = Process()
    await process.ask(Errand.BEGIN_TEST)
    await process.ask(Errand.ABANDON_TEST)
    process.clock.now += TEST_COMES_WITHIN_MS - 1
    await process.ask(Errand.BEGIN_TEST)
    process.clock.fire()
    assert process.slots.taken == 1
    process.clock.fire()
    assert process.slots.taken == 0
