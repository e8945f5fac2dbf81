"""Filters: patterns for an event's data that select the events that an endpoint receives.

A filter is an object that mirrors the structure of the data. Each of its values is a nested object, or a list of
alternatives (values and operators). All fields of an object must match. At least one alternative in a list must match.
`$or` is a list of objects, at least one of which must match. An array in the data matches if one of its elements
matches.
"""

import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from uplift_server.core.limits import FILTER_ALTERNATIVES_MAX, FILTER_BYTES_MAX, FILTER_LEVELS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import FIELD_CHARACTERS_MAX, did_you_mean

OR: Final = "$or"
_PREFIX: Final = "prefix"
_SUFFIX: Final = "suffix"
_ANYTHING_BUT: Final = "anything-but"
_EXISTS: Final = "exists"
_NUMERIC: Final = "numeric"
_OPERATORS: Final = (_PREFIX, _SUFFIX, _ANYTHING_BUT, _EXISTS, _NUMERIC)
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    ">=": operator.ge,
    ">": operator.gt,
}
_BOUNDS_MAX: Final = 2
"""The maximum number of comparisons in `numeric`."""
_MISSING: Final = object()
"""A placeholder for the value of a field that the data does not have."""
_CHARACTERS_PER_STEP: Final = 512
"""Number of characters of a prefix or suffix that Python can compare in the time that one step takes.

The number applies to the worst case, in which Python stores the value with more bytes per character than the prefix or
suffix.
"""
_CHARACTERS_PER_TEXT: Final = 64
"""The fixed cost of a prefix or suffix, expressed as the number of characters that can be compared in the same time."""


class BudgetExceeded(Exception):
    """The evaluation of a filter needs too many steps."""


class Budget:
    """The number of steps that filter evaluation may still take."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def spend(self, steps: int) -> None:
        """Deduct steps from the budget before the evaluation takes them.

        If too few steps are left, the function deducts nothing and raises BudgetExceeded.
        """
        if steps > self.steps:
            raise BudgetExceeded
        self.steps -= steps


class Filter:
    """A compiled filter that checks whether the data of an event matches."""

    __slots__ = ("_root",)

    def __init__(self, text: str) -> None:
        """Compile a filter from its JSON text. `check_filter` must have found no problems."""
        self._root = _Fields(json.loads(text), "data")

    def first_mismatch(self, data: object, budget: Budget) -> str | None:
        """Return the first path in the filter that the data does not match, or None if the data matches the filter.

        Raises BudgetExceeded if the check takes too many steps.
        """
        return self._root.mismatch(data, budget)


def filter_text(pattern: object) -> str:
    """Return a filter as compact JSON, for storage."""
    return json.dumps(pattern, ensure_ascii=False, separators=(",", ":"))


def check_filter(pattern: object, field: str = "filter") -> list[Problem]:
    """Return all problems with a filter. Each problem's field is its path in the filter."""
    if not isinstance(pattern, dict):
        return [_problem(field, "The filter is not an object. Send a JSON object like the event's data.")]
    try:
        size = len(filter_text(pattern).encode())
    except (ValueError, RecursionError):
        text = "The filter has an unpaired surrogate, too many levels or a number that is too long. Correct the filter."
        return [_problem(field, text)]
    if size > FILTER_BYTES_MAX:
        text = f"The filter has {size} bytes as JSON. Use at most {FILTER_BYTES_MAX}."
        return [_problem(field, text)]
    checked = _Check()
    checked.pattern(pattern, field, 1)
    if checked.alternatives > FILTER_ALTERNATIVES_MAX:
        text = f"The filter has {checked.alternatives} values and operators. Use at most {FILTER_ALTERNATIVES_MAX}."
        checked.problems.append(_problem(field, text))
    return checked.problems


class _Check:
    """Collects the problems with a filter."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.alternatives = 0
        """The number of values and operators in the filter."""

    def add(self, path: str, text: str) -> None:
        self.problems.append(_problem(path, text))

    def pattern(self, pattern: Mapping[str, object], path: str, level: int) -> None:
        """Collect the problems with an object in the filter and with its nested objects."""
        if level > FILTER_LEVELS_MAX:
            self.add(path, f"The filter has too many levels. Use at most {FILTER_LEVELS_MAX} nested objects.")
        elif not pattern:
            self.add(path, "The object is empty. Add a field, or remove the object.")
        else:
            for name, value in pattern.items():
                self._field(name, value, f"{path}.{name}", level)

    def _field(self, name: str, value: object, path: str, level: int) -> None:
        if name == OR:
            self._branches(value, path, level)
        elif name.startswith("$"):
            self.add(path, f"The name begins with $, and the only such name is {OR}. Correct the name.")
        elif isinstance(value, dict):
            self.pattern(value, path, level + 1)
        elif isinstance(value, list):
            if not value:
                self.add(path, "The list is empty. Add a value or an operator.")
            self.alternatives += len(value)
            for number, alternative in enumerate(value):
                self._alternative(alternative, f"{path}.{number}")
        else:
            self.add(path, "The value is not a list or an object. Put the value into a list: [value].")

    def _branches(self, branches: object, path: str, level: int) -> None:
        if not isinstance(branches, list) or not branches:
            self.add(path, f"{OR} is not a list of objects. Send a list with at least one object.")
            return
        for number, branch in enumerate(branches):
            if isinstance(branch, dict):
                self.pattern(branch, f"{path}.{number}", level + 1)
            else:
                self.add(f"{path}.{number}", "The alternative is not an object. Send an object like the event's data.")

    def _alternative(self, alternative: object, path: str) -> None:
        if isinstance(alternative, dict):
            if len(alternative) != 1:
                self.add(path, "The object does not have exactly one operator. Use one object for each operator.")
                return
            [(name, value)] = alternative.items()
            self._operator(name, value, f"{path}.{name}")
        elif not _is_scalar(alternative):
            self.add(
                path, "The alternative is not valid. Use a string, a finite number, true, false, null or an operator."
            )

    def _operator(self, name: str, value: object, path: str) -> None:
        if name in (_PREFIX, _SUFFIX):
            if not isinstance(value, str):
                self.add(path, f"The value of {name} is not a string. Send a string.")
        elif name == _EXISTS:
            if not isinstance(value, bool):
                self.add(path, "The value of exists is not a boolean. Send true or false.")
        elif name == _ANYTHING_BUT:
            if not isinstance(value, list) or not value or not all(map(_is_scalar, value)):
                self.add(
                    path, "The value of anything-but is not a list of values. Send a list with at least one value."
                )
            else:
                self.alternatives += len(value) - 1
        elif name == _NUMERIC:
            if not _is_numeric(value):
                text = 'The value of numeric is not valid. Send one or two comparisons, such as [">=", 1, "<", 5].'
                self.add(path, text)
        else:
            known = ", ".join(_OPERATORS)
            self.add(path, f"The operator does not exist.{did_you_mean(name, _OPERATORS)} Use one of {known}.")


def _problem(path: str, text: str) -> Problem:
    return Problem(path[:FIELD_CHARACTERS_MAX], "filter_invalid", text)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_numeric(value: object) -> bool:
    if not isinstance(value, list) or len(value) not in range(2, 2 * _BOUNDS_MAX + 1, 2):
        return False
    names, numbers = value[::2], value[1::2]
    return all(isinstance(name, str) and name in _COMPARISONS for name in names) and all(map(_is_number, numbers))


_TRUE: Final = object()
_FALSE: Final = object()
"""Objects that represent true and false in sets of JSON values, because Python treats True as 1 and False as 0."""


def _key(value: object) -> object:
    """Return the form in which a JSON string, number, boolean or null is stored in a set.

    Two forms are equal if and only if the JSON values are equal.
    """
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    return value


class _Alternatives:
    """The compiled list of the values and operators in a filter that apply to one field of the data."""

    __slots__ = (
        "_bounds", "_excluded", "_exists", "_has_only_values", "_is_missing", "_path", "_prefixes", "_suffixes",
        "_values", "cost",
    )  # fmt: skip

    def __init__(self, alternatives: Sequence[Any], path: str) -> None:
        self._path = path
        operators = [each for each in alternatives if isinstance(each, dict)]
        self._values = frozenset(_key(each) for each in alternatives if not isinstance(each, dict))
        self._prefixes = tuple(each[_PREFIX] for each in operators if _PREFIX in each)
        self._suffixes = tuple(each[_SUFFIX] for each in operators if _SUFFIX in each)
        self._bounds = tuple(_bounds(each[_NUMERIC]) for each in operators if _NUMERIC in each)
        excluded = [frozenset(map(_key, each[_ANYTHING_BUT])) for each in operators if _ANYTHING_BUT in each]
        # A value matches at least one of several `anything-but` operators unless all of them exclude it.
        self._excluded = frozenset.intersection(*excluded) if excluded else None
        self._exists = any(each.get(_EXISTS) is True for each in operators)
        self._is_missing = any(each.get(_EXISTS) is False for each in operators)
        self._has_only_values = not operators
        characters = sum(_CHARACTERS_PER_TEXT + len(text) for text in self._prefixes + self._suffixes)
        self.cost = 1 + characters // _CHARACTERS_PER_STEP + 2 * len(self._bounds)
        """Number of steps that the evaluation of one value takes."""

    def mismatch(self, value: object, budget: Budget) -> str | None:
        """Return the path of the field if no alternative matches, or None if one matches.

        The function deducts steps from the budget only for arrays. The caller has already deducted the steps for one
        value.
        """
        if value is _MISSING:
            matches = self._is_missing
        elif self._exists:
            matches = True
        elif isinstance(value, list):
            matches = _has_element(value, self._accepts, self.cost, budget)
        else:
            matches = self._accepts(value)
        return None if matches else self._path

    def _accepts(self, value: Any) -> bool:
        if isinstance(value, dict):
            return self._excluded is not None
        key = _key(value)
        if key in self._values:
            return True
        if self._has_only_values:
            return False
        if self._excluded is not None and key not in self._excluded:
            return True
        if isinstance(value, str):
            return value.startswith(self._prefixes) or value.endswith(self._suffixes)
        return isinstance(key, int | float) and self._is_within(value)

    def _is_within(self, number: float) -> bool:
        for bounds in self._bounds:
            for compare, bound in bounds:
                if not compare(number, bound):
                    break
            else:
                return True
        return False


class _Fields:
    """The compiled form of an object in a filter."""

    __slots__ = ("_branches", "_fields", "_path", "_steps")

    cost: Final = 1

    def __init__(self, pattern: Mapping[str, Any], path: str) -> None:
        self._path = path
        self._fields: list[tuple[str, _Fields | _Alternatives]] = [
            (name, (_Fields if isinstance(value, dict) else _Alternatives)(value, f"{path}.{name}"))
            for name, value in pattern.items()
            if name != OR
        ]
        self._branches = [_Fields(branch, path) for branch in pattern.get(OR, ())]
        self._steps = 1 + sum(part.cost for _, part in self._fields)

    def mismatch(self, value: object, budget: Budget) -> str | None:
        """Return the first path in the filter that the value does not match, or None if the value matches.

        A value that is neither an object nor an array counts as an object without fields.
        """
        if isinstance(value, list):

            def is_match(element: object) -> bool:
                return self._mismatch(element, budget) is None

            return None if _has_element(value, is_match, self.cost, budget) else self._path
        return self._mismatch(value, budget)

    def _mismatch(self, value: object, budget: Budget) -> str | None:
        budget.spend(self._steps)
        found = value if isinstance(value, dict) else {}
        for name, part in self._fields:
            path = part.mismatch(found.get(name, _MISSING), budget)
            if path is not None:
                return path
        if self._branches and all(branch.mismatch(value, budget) is not None for branch in self._branches):
            return f"{self._path}.{OR}"
        return None


def _has_element(values: Sequence[object], is_match: Callable[[Any], bool], cost: int, budget: Budget) -> bool:
    """Return whether at least one element of an array or of its nested arrays matches.

    Each element of an array costs `cost` steps, which the function deducts from the budget.
    """
    arrays = [values]
    while arrays:
        array = arrays.pop()
        budget.spend(cost * len(array))
        for element in array:
            if isinstance(element, list):
                arrays.append(element)
            elif is_match(element):
                return True
    return False


def _bounds(numeric: Sequence[Any]) -> tuple[tuple[Callable[[Any, Any], bool], float], ...]:
    return tuple((_COMPARISONS[name], number) for name, number in zip(numeric[::2], numeric[1::2], strict=True))
