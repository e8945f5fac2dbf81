"""A simple reference implementation of filters, and random filters and data."""

import random
from typing import Any

ABSENT = object()
"""The value of a field that the data does not have."""


def expected(pattern: Any, value: Any) -> bool:
    """Return whether a value matches a pattern, by the definition and without regard to speed."""
    if isinstance(pattern, list):
        return any(alternative_matches(each, value) for each in pattern)
    if isinstance(value, list):
        return any(expected(pattern, each) for each in value)
    fields = value if isinstance(value, dict) else {}
    return all(
        any(expected(branch, fields) for branch in part) if name == "$or" else expected(part, fields.get(name, ABSENT))
        for name, part in pattern.items()
    )


def alternative_matches(alternative: Any, value: Any) -> bool:
    if alternative == {"exists": False} or value is ABSENT:
        return value is ABSENT and alternative == {"exists": False}
    if alternative == {"exists": True}:
        return True
    if isinstance(value, list):
        return any(alternative_matches(alternative, each) for each in value)
    if not isinstance(alternative, dict):
        return typed(alternative) == typed(value)
    [(name, operand)] = alternative.items()
    if name == "anything-but":
        return typed(value) not in [typed(each) for each in operand]
    if name == "numeric":
        if typed(value)[0] != "number":
            return False
        return all(compared(value, name, number) for name, number in zip(operand[::2], operand[1::2], strict=True))
    return isinstance(value, str) and (value.startswith(operand) if name == "prefix" else value.endswith(operand))


def compared(left: float, name: str, right: float) -> bool:
    return {"<": left < right, "<=": left <= right, "=": left == right, ">=": left >= right, ">": left > right}[name]


def typed(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float):
        return "number", float(value)
    return type(value).__name__, value


def random_data(draw: random.Random, levels: int = 3) -> dict[str, Any]:
    """Return random data of an event."""
    return {name: _random_value(draw, levels - 1) for name in draw.sample("xyz", draw.randint(0, 3))}


def _random_value(draw: random.Random, levels: int) -> Any:
    kind = draw.random() if levels else 0
    if kind < 0.6:
        return _random_scalar(draw)
    return random_data(draw, levels) if kind < 0.8 else [_random_value(draw, levels - 1) for _ in range(3)]


def _random_scalar(draw: random.Random) -> Any:
    return draw.choice([None, True, False, 0, 1, 1.0, 2, 0.5, "a", "ab", "b", ""])


def random_filter(draw: random.Random, levels: int = 3) -> dict[str, Any]:
    """Return a random filter."""
    pattern: dict[str, Any] = {
        name: random_filter(draw, levels - 1)
        if levels > 1 and draw.random() < 0.3
        else [_random_alternative(draw) for _ in range(draw.randint(1, 3))]
        for name in draw.sample("xyz", draw.randint(1, 2))
    }
    if levels > 1 and draw.random() < 0.3:
        pattern["$or"] = [random_filter(draw, levels - 1) for _ in range(2)]
    return pattern


def _random_alternative(draw: random.Random) -> Any:
    bound = [draw.choice(["<", "<=", "=", ">=", ">"]), draw.choice([0, 0.5, 1])]
    return draw.choice(
        [
            _random_scalar(draw),
            {"prefix": draw.choice("ab")},
            {"suffix": draw.choice("ab")},
            {"exists": draw.random() < 0.5},
            {"anything-but": [_random_scalar(draw), _random_scalar(draw)]},
            {"numeric": bound},
        ]
    )
