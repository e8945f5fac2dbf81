"""Which event types an endpoint wants."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from uplift_server.core.events.event_types import GROUP_SUFFIX, check_pattern
from uplift_server.core.limits import SUBSCRIPTION_PATTERNS_MAX
from uplift_server.core.problems import Problem


@dataclass(frozen=True, slots=True)
class Subscription:
    """Exact names and `group.*`, which means every type below the group, at any depth; no patterns means all types.

    Any sequence is taken; a tuple is kept.
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
        """Whether an event of this type is owed to the endpoint."""
        return not self.patterns or event_type in self._names or event_type.startswith(self._prefixes)


def pattern_problems(
    patterns: Sequence[str], known_names: Collection[str], field: str = "event_types"
) -> tuple[list[str], list[Problem]]:
    """The well-formed ones among names and patterns, and everything that is wrong with them all."""
    wrong = [check_pattern(pattern, field) for pattern in patterns]
    right = [pattern for pattern, problem in zip(patterns, wrong, strict=True) if problem is None]
    problems = [problem for problem in wrong if problem is not None]
    if len(patterns) > SUBSCRIPTION_PATTERNS_MAX:
        text = f"At most {SUBSCRIPTION_PATTERNS_MAX} entries are taken, not {len(patterns)}. Use group.*."
        problems.append(Problem(field, "too_many", text))
    for pattern in unknown_patterns(right, known_names):
        text = f"The catalog has nothing that fits {pattern}. List the event types."
        problems.append(Problem(field, "event_type_unknown", text))
    return right, problems


def unknown_patterns(patterns: Iterable[str], known_names: Collection[str]) -> list[str]:
    """The patterns that no known event type fits, in their order: surely a slip of the pen."""
    return [
        pattern
        for pattern in patterns
        if not (
            any(name.startswith(_prefix(pattern)) for name in known_names)
            if pattern.endswith(GROUP_SUFFIX)
            else pattern in known_names
        )
    ]


def _prefix(pattern: str) -> str:
    """`group.` of `group.*`."""
    return pattern[:-1]
