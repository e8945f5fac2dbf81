"""Routes for listen sessions, and the websocket that streams their events."""

import asyncio
from contextlib import suppress
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Request, Response, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from uplift_server.api.guard import send_error
from uplift_server.api.listen_bodies import ListenSessionNew, ListenTestNew
from uplift_server.api.listen_rendering import listen_answer_view, listen_session_view, listen_test_view
from uplift_server.api.object_headers import send_location
from uplift_server.api.problems import error_response_of
from uplift_server.api.queries import Paging
from uplift_server.api.reading import BodyReader, CallerOf, ParsedQuery, QueryReader, Sent, ServicesOf, key_of
from uplift_server.api.rendering import listed
from uplift_server.api.repeats import mark_repeated
from uplift_server.api.views import Listed, ListenAnswerView, ListenSessionView, ListenTestView
from uplift_server.core import ids
from uplift_server.core.deliveries.listening import event_frame, parse_local_response
from uplift_server.core.timestamps import format_timestamp
from uplift_server.delivery.listening.streams import EndReason, Stream, StreamItem
from uplift_server.service.errors import ServiceError
from uplift_server.service.listening import ListenDraft, Listening
from uplift_server.service.services import Services
from uplift_server.store.errors import StoreError

router = APIRouter(tags=["Listen sessions"])

CLOSE_CODES: Final = {EndReason.REPLACED: 4009, EndReason.REMOVED: 4004, EndReason.STOPPING: 1012}
"""The websocket close code for each reason to end a stream.

The client reconnects after 1012, but not after 4004. Code 4009 means that another client uses the session.
"""
NOT_A_RESPONSE: Final = 4000
UNEXPECTED_ERROR: Final = 1011

_log = structlog.get_logger("uplift.api")


@router.post(
    "/v1/listen-sessions", status_code=201, summary="Create a listen session", response_model_exclude_unset=True
)
async def create_listen_session(
    request: Request,
    response: Response,
    services: ServicesOf,
    caller: CallerOf,
    sent: Annotated[Sent, Depends(BodyReader(ListenSessionNew, required=False))],
) -> ListenSessionView:
    """Requires the scope `listen`.

    The session streams the account's events to a developer's machine, for example to `uplift listen`. All sessions that
    you create with the same API key have the same secret.
    """
    shown = await services.listening.create(
        caller, ListenDraft(**sent.given), idempotency_key=key_of(request, sent), problems=sent.problems
    )
    mark_repeated(response, repeated=shown.repeated)
    send_location(response, "listen-sessions", ids.prefixed(ids.LISTEN_SESSION, shown.session.id))
    return listen_session_view(shown, spans=caller.spans_accounts)


@router.get("/v1/listen-sessions", summary="List listen sessions", response_model_exclude_unset=True)
async def list_listen_sessions(
    services: ServicesOf, caller: CallerOf, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[ListenSessionView]:
    """Requires the scope `listen`. Returns listen sessions, newest first.

    The server deletes a session if no client is connected to it for 1 day.
    """
    page = await services.listening.page(caller, parsed.values.listing(), problems=parsed.problems)
    return listed(page, lambda shown: listen_session_view(shown, spans=caller.spans_accounts), services.context)


@router.get("/v1/listen-sessions/{session}", summary="Get a listen session", response_model_exclude_unset=True)
async def get_listen_session(services: ServicesOf, caller: CallerOf, session: str) -> ListenSessionView:
    """Requires the scope `listen`."""
    return listen_session_view(await services.listening.get(caller, session), spans=caller.spans_accounts)


@router.delete("/v1/listen-sessions/{session}", status_code=204, summary="Delete a listen session")
async def delete_listen_session(services: ServicesOf, caller: CallerOf, session: str) -> None:
    """Requires the scope `listen`. Disconnects the session's client."""
    await services.listening.delete(caller, session)


@router.get("/v1/listen-sessions/{session}/answers", summary="List the responses of a listen session")
async def list_listen_answers(
    services: ServicesOf, caller: CallerOf, session: str, parsed: Annotated[ParsedQuery, Depends(QueryReader(Paging))]
) -> Listed[ListenAnswerView]:
    """Requires the scope `listen`. Returns the last 1,000 responses of the local server, newest first."""
    page = await services.listening.responses(caller, session, parsed.values.listing(), problems=parsed.problems)
    return listed(page, listen_answer_view, services.context)


@router.post("/v1/listen-sessions/{session}/test", summary="Test a listen session")
async def test_listen_session(
    services: ServicesOf,
    caller: CallerOf,
    session: str,
    sent: Annotated[Sent, Depends(BodyReader(ListenTestNew, required=False))],
) -> ListenTestView:
    """Requires the scope `listen`. Sends a test event to this session only.

    The server does not store the event. `answer` is null if the local server does not respond in time.
    """
    tested = await services.listening.test(caller, session, sent.given.get("type"), problems=sent.problems)
    return listen_test_view(tested)


@router.websocket("/v1/listen-sessions/{session}/stream")
async def stream_listen_session(websocket: WebSocket, session: str) -> None:
    """Requires the scope `listen` and the API key that created the session. The API reference describes the frames."""
    services: Services = websocket.app.state.services
    try:
        authorization = websocket.headers.get("authorization")
        caller = services.authenticator.caller(
            None if authorization is None else authorization.encode("latin-1"),
            websocket.headers.get("uplift-account"),
            None if websocket.client is None else websocket.client.host,
        )
        stream = await services.listening.connect(caller, session, websocket.query_params.get("after"))
    except (ServiceError, StoreError) as error:
        await send_error(websocket.send, error_response_of(error), handshake=True)
        return
    try:
        await websocket.accept()
        await _exchange(websocket, services.listening, stream)
    finally:
        services.listening.disconnect(stream)


async def _exchange(websocket: WebSocket, listening: Listening, stream: Stream) -> None:
    """Send events and receive responses until the client or the server closes the connection."""
    receiving = asyncio.ensure_future(_receive(websocket, listening, stream))
    sending = asyncio.ensure_future(_send(websocket, listening, stream))
    try:
        await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (receiving, sending):
            task.cancel()
        outcomes = await asyncio.gather(receiving, sending, return_exceptions=True)
    # After a connection ends, Starlette raises RuntimeError for each send.
    over = WebSocketState.DISCONNECTED in {websocket.client_state, websocket.application_state}
    expected = (asyncio.CancelledError, WebSocketDisconnect, *((RuntimeError,) if over else ()))
    failures = [each for each in outcomes if each is not None and not isinstance(each, expected)]
    for failure in failures:
        _log.error(
            "listen stream failed with unexpected error",
            session=ids.prefixed(ids.LISTEN_SESSION, stream.session.id),
            exc_info=failure,
        )
    if failures:
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(UNEXPECTED_ERROR, "unexpected error; reconnect")
    elif stream.end_reason is not None:
        with suppress(RuntimeError, WebSocketDisconnect):
            await websocket.close(CLOSE_CODES[stream.end_reason], stream.end_reason.value)


async def _send(websocket: WebSocket, listening: Listening, stream: Stream) -> None:
    await websocket.send_json({"kind": "ready", "session": ids.prefixed(ids.LISTEN_SESSION, stream.session.id)})
    while (batch := await stream.next()) is not None:
        for item in batch:
            if stream.end_reason is not None:
                return
            await websocket.send_bytes(event_frame(_header(listening, stream, item), item.body))


async def _receive(websocket: WebSocket, listening: Listening, stream: Stream) -> None:
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        response = parse_local_response(message.get("text") or "")
        if response is None:
            await websocket.close(NOT_A_RESPONSE, "the message is not a response to an event")
            return
        listening.record_response(stream, response)


def _header(listening: Listening, stream: Stream, item: StreamItem) -> dict[str, object]:
    return {
        "place": listening.position_of(item),
        "event": ids.uuid_text(item.event_id),
        "type": item.type,
        "created_at": format_timestamp(item.created_at),
        "delivery": ids.delivery_id(item.event_id, stream.session.id),
        "test": item.position < 0,
    }
