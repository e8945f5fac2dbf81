"""API calls that create, read, test and delete listen sessions."""

from collections.abc import Iterable
from typing import Final

from uplift_webhooks.api.calls import Call, Noun, Way, delete, every, get, get_page, given, post, texts, verb
from uplift_webhooks.api.pages import Instant, JsonObject, Order, Page, segment

_LISTEN_SESSIONS: Final = "/v1/listen-sessions"


class ListenSessions(Noun[Way]):
    """`/v1/listen-sessions`: event streams to a developer's machine, for `uplift listen`."""

    @verb
    def create(
        self,
        *,
        event_types: str | Iterable[str] | None = None,
        since: Instant | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[JsonObject]:
        """Create a session. All sessions of an API key have the same `secret`."""
        body = given(event_types=texts(event_types), since=since, description=description)
        return post(_LISTEN_SESSIONS, body, idempotency_key=idempotency_key)

    @verb
    def list(self, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None) -> Call[Page]:
        """Return one page of sessions, newest first."""
        return get_page(_LISTEN_SESSIONS, limit=limit, cursor=cursor, order=order)

    iterate = every(list)

    @verb
    def get(self, session: str) -> Call[JsonObject]:
        """Return a session by its ID."""
        return get(_path(session))

    @verb
    def answers(
        self, session: str, *, limit: int | None = None, cursor: str | None = None, order: Order | None = None
    ) -> Call[Page]:
        """Return one page of the local server's responses to a session's events, newest first."""
        return get_page(f"{_path(session)}/answers", limit=limit, cursor=cursor, order=order)

    @verb
    def test(self, session: str, type: str | None = None) -> Call[JsonObject]:
        """Send a test event to a session.

        Return the `event`, and the local server's response in `answer` if it arrives in time.
        """
        return post(f"{_path(session)}/test", given(type=type))

    @verb
    def delete(self, session: str) -> Call[None]:
        """Delete a session and close its connection."""
        return delete(_path(session))


def _path(session: str) -> str:
    return f"{_LISTEN_SESSIONS}/{segment(session)}"
