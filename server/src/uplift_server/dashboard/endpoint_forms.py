"""The form that creates or edits an endpoint."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS, EndpointSetting
from uplift_server.core.events.catalog import WEBHOOK_CREATED
from uplift_server.core.events.event_types import GROUP_SUFFIX
from uplift_server.core.events.operational import OPERATIONAL_TYPES
from uplift_server.core.http.headers import MASKED, mask
from uplift_server.core.limits import CUSTOM_HEADERS_MAX, DESCRIPTION_CHARACTERS_MAX
from uplift_server.core.problems import Problem
from uplift_server.dashboard.auth_forms import FilledAuth, at_auth_fields, auth_in, filled_auth, sent_auth
from uplift_server.dashboard.filter_forms import filter_input, filter_of, named_paths
from uplift_server.dashboard.forms import Form
from uplift_server.dashboard.own_data import metadata_input, own_data
from uplift_server.service.endpoint_drafts import EndpointDraft
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.service.fields import UNSET
from uplift_server.store.records import EventType

_OPERATIONAL_NOTE: Final = (
    "The server sends these events only to endpoints that select them. An endpoint does not receive operational events"
    " about itself."
)
_NAMED_MAX: Final = 40
"""Maximum number of characters that an error message quotes from an input."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A checkbox for an event type or for a group of event types."""

    pattern: str
    text: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A group of checkboxes.

    A group contains one of the following: all event types with the same first word, the operational event types, or the
    selected patterns that are in no other group. `whole` is the checkbox for all event types with the same first word,
    including future event types, or None if the group has no such checkbox.
    """

    title: str
    whole: Choice | None
    types: tuple[Choice, ...]
    note: str = ""

    @property
    def size(self) -> int:
        """The number of event types in the group."""
        return len(self.types)

    @property
    def is_open(self) -> bool:
        """Whether at least one checkbox of the group is selected. If so, the form shows the group expanded."""
        return any(each.chosen for each in (*((self.whole,) if self.whole else ()), *self.types))


@dataclass(frozen=True, slots=True)
class Filled:
    """The field values in the endpoint form."""

    url: str = ""
    description: str = ""
    event_types: tuple[str, ...] = ()
    filter: str = ""
    secret: str = field(default="", repr=False)
    headers: str = field(default="", repr=False)
    uid: str = ""
    metadata: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    auth: FilledAuth = field(default_factory=FilledAuth)

    @property
    def has_more(self) -> bool:
        """Whether at least one advanced field has a value. If so, the form shows the advanced fields."""
        return any((self.secret, self.headers, self.uid, self.metadata, *self.settings.values()))


def filled_with(shown: ShownEndpoint) -> Filled:
    """Return the field values for a stored endpoint. Header values are masked, except for some standard headers."""
    endpoint = shown.endpoint
    return Filled(
        url=endpoint.url,
        description=endpoint.description,
        event_types=endpoint.event_types,
        filter=filter_input(endpoint.filter),
        headers="\n".join(f"{name}: {mask(name, value)}" for name, value in shown.headers.items()),
        uid=endpoint.uid or "",
        metadata=metadata_input(endpoint.metadata),
        settings={
            each.name: each.text(value)
            for each in ENDPOINT_SETTINGS
            if (value := getattr(endpoint.settings, each.attribute)) != each.initial
        },
        auth=filled_auth(shown.auth),
    )


def field_texts(filled: Filled) -> dict[str, str]:
    """Return the values of the fields, except secrets, by label."""
    return {
        "URL": filled.url,
        "Description": filled.description,
        "Event types": ", ".join(filled.event_types),
        "Filter": filled.filter,
        "Custom headers": filled.headers,
        **{
            each.label: "" if value == each.text(each.initial) else value
            for each in ENDPOINT_SETTINGS
            for value in [filled.settings.get(each.name, "")]
        },
        "Your own ID": filled.uid,
        "Metadata": filled.metadata,
        "Authentication": " ".join(
            (filled.auth.auth_type, filled.auth.token_url, filled.auth.client_id, filled.auth.scope)
        ),
    }


def as_sent(form: Form) -> Filled:
    """Return the submitted field values, so that the page can show the form again."""
    return Filled(
        url=form.text("url"),
        description=form.text("description"),
        event_types=tuple(form.texts("event_types")),
        filter=form.raw("filter"),
        secret=form.text("secret"),
        headers=form.raw("headers"),
        uid=form.text("uid"),
        metadata=form.raw("metadata"),
        settings={each.name: form.text(each.name) for each in ENDPOINT_SETTINGS},
        auth=sent_auth(form),
    )


def draft_of(form: Form, stored: ShownEndpoint | None = None) -> tuple[EndpointDraft, list[Problem]]:
    """Return the draft of a new or edited endpoint, and the problems found in the form."""
    problems: list[Problem] = []
    url, description = form.text("url"), form.raw("description").strip()
    if len(description) > DESCRIPTION_CHARACTERS_MAX or "\0" in description:
        text = f"Enter at most {DESCRIPTION_CHARACTERS_MAX:,} characters."
        problems.append(Problem("description", "too_long", text))
    chosen = _without_covered(form.texts("event_types"))
    headers, wrong = _headers(form.lines("headers"), {} if stored is None else stored.headers)
    problems.extend(wrong)
    own = own_data(form, problems)
    draft = EndpointDraft(
        # Do not validate an unchanged URL again: a URL that is no longer valid must not block other changes.
        url=UNSET if stored is not None and url == stored.endpoint.url else url,
        description=description,
        # Checkboxes have no order, so keep the stored order if the selection is the same.
        event_types=UNSET if stored is not None and set(chosen) == set(stored.endpoint.event_types) else chosen,
        secret=UNSET if stored is not None else form.optional("secret"),
        headers=headers,
        uid=own.uid,
        metadata=own.metadata,
        auth=auth_in(form, stored, problems),
        filter=filter_of(form, problems),
        # A form that an earlier release rendered may lack some settings.
        settings={each.name: _setting(form, each, problems) for each in ENDPOINT_SETTINGS if form.flag(each.name)},
    )
    return draft, problems


def named_at_fields(problems: Iterable[Problem]) -> list[Problem]:
    """Set each problem's field to the form field that contains the invalid value.

    The form has only one field for all headers, and only one field for the filter. Therefore, add the header's name or
    the path in the filter to the problem's message.
    """
    return [
        Problem("headers", each.code, f"{each.field.partition('.')[2][:_NAMED_MAX]}: {each.message}")
        if each.field.startswith("headers.")
        else each
        for each in named_paths(at_auth_fields(problems))
    ]


def groups(types: Sequence[EventType], chosen: Sequence[str]) -> list[Group]:
    """Return the groups of checkboxes in display order.

    The form shows a group for each first word, then the operational event types, then the selected patterns that are in
    no other group.
    """
    wanted = set(chosen)
    operational: list[EventType] = []
    by_word: dict[str, list[EventType]] = {}
    for each in types:
        # Offer the registration event only if it is selected, because every new endpoint receives this event anyway.
        if each.name in wanted or (each.archived_at is None and each.name != WEBHOOK_CREATED):
            is_operational = each.name in OPERATIONAL_TYPES
            (operational if is_operational else by_word.setdefault(each.name.partition(".")[0], [])).append(each)
    found = [_group(word, members, wanted) for word, members in sorted(by_word.items())]
    if operational:
        found.append(Group("Operational events", None, _choices(operational, wanted), _OPERATIONAL_NOTE))
    shown = {choice.pattern for group in found for choice in (group.whole, *group.types) if choice is not None}
    others = tuple(Choice(pattern, "", chosen=True) for pattern in chosen if pattern not in shown)
    return [*found, Group("Other patterns", None, others)] if others else found


def _group(word: str, members: Sequence[EventType], wanted: set[str]) -> Group:
    pattern = word + GROUP_SUFFIX
    dotted = any("." in each.name for each in members)
    whole = Choice(pattern, "All types in this group, including future ones", pattern in wanted) if dotted else None
    return Group(word, whole, _choices(members, wanted))


def _choices(members: Sequence[EventType], wanted: set[str]) -> tuple[Choice, ...]:
    types = sorted(members, key=lambda each: each.name)
    return tuple(Choice(each.name, _first_sentence(each.description), each.name in wanted) for each in types)


def _first_sentence(text: str) -> str:
    first, point, _ = text.partition(". ")
    return first + point.strip()


def _without_covered(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns, except event types that a pattern for a whole group already includes."""
    whole = tuple(each[:-1] for each in patterns if each.endswith(GROUP_SUFFIX))
    return tuple(
        dict.fromkeys(each for each in patterns if each.endswith(GROUP_SUFFIX) or not each.startswith(whole or ("\0",)))
    )


def _headers(lines: Sequence[str], stored: Mapping[str, str]) -> tuple[dict[str, str], list[Problem]]:
    """Parse header lines (`Name: value`). Return the headers and the problems.

    Replace a masked value with the stored value.
    """
    headers: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(lines[: CUSTOM_HEADERS_MAX + 1], start=1):
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            text = f"Line {number} is not a header. Enter it as Name: value."
            problems.append(Problem("headers", "header_invalid", text))
        elif name in headers:
            text = f"The header {name[:_NAMED_MAX]} occurs twice. Remove one."
            problems.append(Problem("headers", "header_duplicate", text))
        else:
            headers[name] = stored.get(name, value) if value == MASKED else value
    return headers, problems


def _setting(form: Form, setting: EndpointSetting, problems: list[Problem]) -> Any:
    """Return the JSON value of a setting in a form, or None if the field is empty. The service validates the value.

    If the text cannot be parsed, add a problem and return None.
    """
    text = form.text(setting.name)
    if not text:
        return None
    try:
        return setting.type.parse(text)
    except ValueError as error:
        problems.append(Problem(setting.name, "wrong_type", str(error)))
        return None
