"""The form fields `uid` and `metadata`."""

import json
from contextlib import suppress
from typing import NamedTuple

from uplift_server.core.own_data import metadata_of
from uplift_server.core.problems import Problem
from uplift_server.dashboard.forms import Form
from uplift_server.service.fields import UNSET, Unset


class OwnData(NamedTuple):
    """The values of the form fields `uid` and `metadata`.

    UNSET means that the form does not have the field, so the value does not change.
    """

    uid: str | Unset | None
    metadata: dict[str, str] | Unset | None


def own_data(form: Form, problems: list[Problem]) -> OwnData:
    """Return the values of `uid` and `metadata` in a form.

    Add a problem if the metadata is not a JSON object whose values are strings.
    """
    return OwnData(form.optional("uid") if form.flag("uid") else UNSET, _metadata(form, problems))


def metadata_input(stored: str | None) -> str:
    """Return stored metadata as text for the form field."""
    return "" if stored is None else json.dumps(metadata_of(stored), ensure_ascii=False, indent=2)


def _metadata(form: Form, problems: list[Problem]) -> dict[str, str] | Unset | None:
    if not form.flag("metadata"):
        return UNSET
    with suppress(ValueError):
        found = form.json_object("metadata")
        if found is None or all(isinstance(each, str) for each in found.values()):
            return found
    example = '{"plan": "club"}'
    problems.append(Problem("metadata", "type_object", f"Enter a JSON object of strings, such as {example}."))
    return UNSET
