"""Converts listen session records to API models."""

from uplift_server.api.rendering import account_field
from uplift_server.api.views import ListenAnswerView, ListenSessionView, ListenTestView
from uplift_server.core import ids
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp
from uplift_server.service.listening import SentTest, ShownSession
from uplift_server.store.listening import ListenResponse


def listen_session_view(shown: ShownSession, *, spans: bool) -> ListenSessionView:
    """Return the API model of a listen session. If `spans` is true, the model contains the account."""
    session = shown.session
    secret = {} if shown.secret is None else {"secret": shown.secret}
    return ListenSessionView(
        id=ids.prefixed(ids.LISTEN_SESSION, session.id),
        **account_field(session.account_id, spans=spans),
        key=ids.prefixed(ids.KEY, session.key_id),
        description=session.description,
        event_types=list(session.event_types),
        connected=shown.connected,
        created_at=format_timestamp(session.created_at),
        last_seen_at=format_timestamp(session.last_seen_at),
        expires_at=format_optional_timestamp(shown.expires_at),
        **secret,
    )


def listen_answer_view(response: ListenResponse) -> ListenAnswerView:
    """Return the API model of a local server's response."""
    return ListenAnswerView(
        event=ids.uuid_text(response.event_id),
        type=response.type,
        at=format_timestamp(response.at),
        status_code=response.status_code,
        duration_ms=response.duration_ms,
        error=response.error,
        body=response.body,
        redelivered=response.redelivered,
    )


def listen_test_view(tested: SentTest) -> ListenTestView:
    """Return the API model of a test event's result."""
    answer = None if tested.response is None else listen_answer_view(tested.response)
    return ListenTestView(event=ids.uuid_text(tested.event_id), type=tested.type, answer=answer)
