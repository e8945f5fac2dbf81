"""Reports unknown names, such as misspelled fields, and suggests the right names."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from uplift_server.core.limits import PROBLEMS_LISTED_MAX
from uplift_server.core.problems import Problem

SUGGESTIONS_MAX: Final = 10
"""Maximum number of suggestions in one response. Each suggestion takes up to 2 ms."""
FIELD_CHARACTERS_MAX: Final = 200
"""Maximum number of characters of a field name in a response."""
_CANDIDATES_MAX: Final = 300
_CLOSE_MAX: Final = 8
"""Maximum number of candidates to compare in full with the unknown name. A quick comparison of letters selects these
candidates."""
_CHARACTERS_MAX: Final = 64
_LETTERS_DIFFERENT_MAX: Final = 5
_SIMILARITY_MIN: Final = 0.7
_WORD_CHARACTERS_MIN: Final = 4
_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+")


def unknown_fields(
    names: Iterable[str], known: Collection[str], prefix: str = "", texts: Mapping[str, str] = MappingProxyType({})
) -> list[Problem]:
    """Return a problem for each unknown field name, but at most PROBLEMS_LISTED_MAX + 1 problems.

    The extra problem shows callers that there are more problems than a response lists.

    `texts` contains messages for unknown names that users often send.
    """
    unknown = islice((name for name in names if name not in known), PROBLEMS_LISTED_MAX + 1)
    problems = []
    for number, name in enumerate(unknown):
        suggestion = did_you_mean(name, known) if number < SUGGESTIONS_MAX else ""
        text = texts.get(name) or f"The field does not exist.{suggestion or ' Check its spelling, or omit it.'}"
        problems.append(Problem(f"{prefix}{name}"[:FIELD_CHARACTERS_MAX], "unknown_field", text))
    return problems


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean x?` with the candidate most similar to a name, or an empty string if none is similar."""
    found = closest(name, candidates)
    return "" if found is None else f" Did you mean {found}?"


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate most similar to a name.

    If none is similar, return the last word in the name that is itself a candidate. Return None if there is no such
    word.
    """
    if len(name) > _CHARACTERS_MAX:
        return None
    known = list(islice(candidates, _CANDIDATES_MAX))
    lower = name.lower()
    letters = set(lower)
    likely = [
        each
        for each in known
        if len(letters.symmetric_difference(each)) <= _LETTERS_DIFFERENT_MAX
        and 2 * min(len(each), len(lower)) >= _SIMILARITY_MIN * (len(each) + len(lower))
    ]
    likely.sort(key=lambda each: (len(letters.symmetric_difference(each)), abs(len(each) - len(lower)), each))
    similar = difflib.get_close_matches(lower, likely[:_CLOSE_MAX], 1, _SIMILARITY_MIN)
    if similar:
        return similar[0]
    words = [word.lower() for word in _WORD.findall(name)]
    return next((word for word in reversed(words) if len(word) >= _WORD_CHARACTERS_MIN and word in known), None)
