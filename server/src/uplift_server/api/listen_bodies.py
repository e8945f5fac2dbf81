"""Request body models for listen sessions."""

from pydantic import Field

from uplift_server.api.bodies import PATTERNS, Body


class ListenSessionNew(Body):
    """A new listen session."""

    event_types: list[str] | None = Field(
        default=None,
        description=PATTERNS,
        examples=[["movement.*"]],
    )
    since: str | None = Field(
        default=None,
        description="Start of the stream: a timestamp or an event ID. With an event ID, the stream starts after this"
        " event. Default: now.",
    )
    description: str | None = Field(
        default=None, description="Description of the session, such as your computer's name.", examples=["ana-laptop"]
    )


class ListenTestNew(Body):
    """A test event for a listen session."""

    type: str | None = Field(default=None, description="Event type of the example to send.")
