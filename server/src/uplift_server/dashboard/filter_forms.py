"""The filter field of the endpoint form, and its preview."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from uplift_server.core.problems import Problem
from uplift_server.dashboard.forms import Form
from uplift_server.service.fields import UNSET, Unset
from uplift_server.service.filter_previews import PreviewedEvent

PREVIEW_FIELD: Final = "preview"
"""The form field that requests a preview of the filter. If the form has this field, the server does not save the form.
"""
_EXAMPLE: Final = '{"object": {"movement": ["pitching"]}}'


@dataclass(frozen=True, slots=True)
class ShownPreview:
    """A preview of a filter: the newest events, each with the filter's result, or the problems with the filter."""

    events: Sequence[PreviewedEvent] = ()
    problems: Sequence[Problem] = ()

    @property
    def matched(self) -> int:
        """The number of events in the preview that match the filter."""
        return sum(each.mismatch is None for each in self.events)


def filter_input(stored: str | None) -> str:
    """Return a stored filter as text for the form field."""
    return "" if stored is None else json.dumps(json.loads(stored), ensure_ascii=False, indent=2)


def filter_of(form: Form, problems: list[Problem]) -> dict[str, object] | Unset | None:
    """Return the filter in a form, None if the field is empty, or UNSET if the form has no filter field.

    If the text is not a JSON object, add a problem and return UNSET.
    """
    if not form.flag("filter"):
        return UNSET
    try:
        return form.json_object("filter")
    except ValueError:
        problems.append(Problem("filter", "type_object", f"Enter a JSON object, such as {_EXAMPLE}."))
        return UNSET


def named_paths(problems: Sequence[Problem]) -> list[Problem]:
    """Add the path in the filter to each problem's message, because the form has only one field for the filter."""
    found = []
    for each in problems:
        field, _, path = each.field.partition(".")
        found.append(Problem(field, each.code, f"{path}: {each.message}") if field == "filter" and path else each)
    return found
