"""The table of state transitions and the state diagram of deliveries, generated from `core/lifecycle.py`."""

from typing import Final

from uplift_server.core.lifecycle import TRANSITIONS, Event, State, Transition

_HEAD: Final = "| state | event | condition | next state | due | also |\n|---|---|---|---|---|---|\n"
_LATE: Final = (Event.SUCCEED, Event.FAIL, Event.SKIP)
"""Events whose effect on a delivery without a lease is omitted from the diagram."""


def lifecycle() -> str:
    """Return the table of transitions and the diagram of states."""
    rows = "".join(f"| {' | '.join(_cells(row))} |\n" for row in TRANSITIONS)
    return f"{_HEAD}{rows}\n```mermaid\nstateDiagram-v2\n{_diagram()}```\n"


def _cells(row: Transition) -> tuple[str, ...]:
    conditions = [*(fact.value for fact in row.when), *(f"not {fact.value}" for fact in row.unless)]
    due = row.due.value if row.due else ""
    also = [f"reason `{row.reason.text}`"] if row.reason else []
    also += [effect.value for effect in row.effects]
    states = ", ".join(map(_name, row.before))
    return (states, row.event.value, ", ".join(conditions), _name(row.after), due, ", ".join(also))


def _name(state: State | None) -> str:
    return "remembered" if state is None else state.name.lower()


def _diagram() -> str:
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for row in TRANSITIONS:
        for state in row.before:
            if row.event not in _LATE or state is State.LEASED:
                arrow = ("[*]" if state is State.NEW else _name(state), _name(row.after))
                labels.setdefault(arrow, {})[row.event.value] = None
    return "".join(f"    {a} --> {b}: {' / '.join(events)}\n" for (a, b), events in labels.items())
