"""Subscriptions: the event types that an endpoint receives."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from uplift_server.core.events.event_types import GROUP_SUFFIX, check_pattern
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.limits import SUBSCRIPTION_PATTERNS_MAX
from uplift_server.core.problems import Problem
from uplift_server.core.suggestions import SUGGESTIONS_MAX, did_you_mean


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription: exact names of event types, and `group.*` patterns.

    A `group.*` pattern matches all types of a group at any depth. A subscription with no names or patterns matches all
    types except operational event types. The constructor accepts any sequence and stores a tuple.
    """

    patterns: Sequence[str]
    _names: frozenset[str] = field(init=False, repr=False, compare=False)
    _prefixes: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        patterns = tuple(self.patterns)
        object.__setattr__(self, "patterns", patterns)
        object.__setattr__(self, "_names", frozenset(name for name in patterns if not name.endswith(GROUP_SUFFIX)))
        object.__setattr__(
            self, "_prefixes", tuple(_prefix(pattern) for pattern in patterns if pattern.endswith(GROUP_SUFFIX))
        )

    def matches(self, event_type: str) -> bool:
        """Return whether the subscription matches an event type."""
        if self.patterns:
            return event_type in self._names or event_type.startswith(self._prefixes)
        return event_type not in OPERATIONAL_TYPES


def matching_patterns(event_type: str) -> list[str]:
    """Return all patterns that match an event type, including its exact name."""
    parts = event_type.split(".")
    return [event_type, *(".".join(parts[:count]) + GROUP_SUFFIX for count in range(1, len(parts)))]


def pattern_problems(
    patterns: Sequence[str], known_names: Collection[str], field: str = "event_types"
) -> tuple[list[str], list[Problem]]:
    """Return the names and patterns with a valid form, even if they match no event type, and all problems."""
    checked = [check_pattern(pattern, field) for pattern in patterns]
    valid = [pattern for pattern, problem in zip(patterns, checked, strict=True) if problem is None]
    problems = [problem for problem in checked if problem is not None]
    if len(patterns) > SUBSCRIPTION_PATTERNS_MAX:
        text = (
            f"The list has {len(patterns)} entries. Use at most {SUBSCRIPTION_PATTERNS_MAX}, or patterns like group.*."
        )
        problems.append(Problem(field, "too_many", text))
    for number, pattern in enumerate(unknown_patterns(valid, known_names)):
        is_group = pattern.endswith(GROUP_SUFFIX)
        candidates = _groups(known_names) if is_group else known_names
        suggestion = did_you_mean(pattern, candidates) if number < SUGGESTIONS_MAX else ""
        text = f"No event type matches {pattern}.{suggestion} See the event catalog (GET /v1/event-types)."
        problems.append(Problem(field, "event_type_unknown", text))
    return valid, problems


def unknown_patterns(patterns: Iterable[str], known_names: Collection[str]) -> list[str]:
    """Return the patterns that match no known event type, in the given order."""
    return [
        pattern
        for pattern in patterns
        if not (
            any(name.startswith(_prefix(pattern)) for name in known_names)
            if pattern.endswith(GROUP_SUFFIX)
            else pattern in known_names
        )
    ]


def _groups(names: Iterable[str]) -> Iterator[str]:
    """Yield the `group.*` pattern for each group in the names, without duplicates."""
    seen = set()
    for name in names:
        parts = name.split(".")
        for count in range(1, len(parts)):
            group = ".".join(parts[:count]) + GROUP_SUFFIX
            if group not in seen:
                seen.add(group)
                yield group


def _prefix(pattern: str) -> str:
    return pattern[:-1]
