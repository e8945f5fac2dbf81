"""Request body models for event types."""

from typing import Any

from pydantic import Field

from uplift_server.api.bodies import Body, Prose

API_VERSION_CHARACTERS_MAX = 32
GROUP_CHARACTERS_MAX = 128
_LINE = r"^[ -~]+$"


class EventTypeNew(Body):
    """An event type in the catalog."""

    description: Prose = Field(description="Description of the event: when it occurs and what it contains.")
    group: str | None = Field(
        default=None,
        max_length=GROUP_CHARACTERS_MAX,
        pattern=_LINE,
        description="Heading under which the catalog lists the event type. Default: the first word of the name.",
    )
    schema_: Any = Field(default=None, alias="schema", description="JSON Schema 2020-12 of `data`.")
    example: Any = Field(default=None, description="Example of `data`.")
    api_version: str | None = Field(
        default=None,
        max_length=API_VERSION_CHARACTERS_MAX,
        pattern=_LINE,
        description="The `api_version` of new events. Default: 01/01/2022.",
    )
    archived: bool = Field(default=False, description="Whether the server rejects new events of this type.")


class EventTypeChange(Body):
    """An update to an event type. Omitted fields stay unchanged, and null resets a field to its default."""

    description: Prose = Field(default="", description="Description of the event: when it occurs and what it contains.")
    group: str | None = Field(
        default=None,
        max_length=GROUP_CHARACTERS_MAX,
        pattern=_LINE,
        description="Heading under which the catalog lists the event type.",
    )
    schema_: Any = Field(default=None, alias="schema", description="JSON Schema 2020-12 of `data`.")
    example: Any = Field(default=None, description="Example of `data`.")
    api_version: str | None = Field(
        default=None,
        max_length=API_VERSION_CHARACTERS_MAX,
        pattern=_LINE,
        description="The `api_version` of new events.",
    )
    archived: bool = Field(default=False, description="Whether the server rejects new events of this type.")
