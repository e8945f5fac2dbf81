"""Output of `uplift listen`: status messages on standard error, and one line per delivery on standard output."""

import json
import time
from typing import Any, Final

from uplift_webhooks.cli.kit.output import Output
from uplift_webhooks.cli.listening.frames import EventFrame, LocalResponse
from uplift_webhooks.cli.listening.target import Target

SECRET_DOUBTED: Final = frozenset({400, 401})
"""Status codes of local servers that probably do not use the session's secret to verify requests."""
DOUBT_HINT: Final = (
    "set UPLIFT_WEBHOOK_SECRET to the output of `uplift listen --print-secret`; endpoints have different secrets"
)


class Narration:
    """Prints the output of one listen session."""

    def __init__(self, output: Output, made: dict[str, Any], target: Target | None, *, show_secret: bool) -> None:
        """With `show_secret`, the output contains the session's secret, even if the output goes to a file or a log."""
        output.streams = True
        self._output = output
        self._session: str = made["id"]
        self._secret: str | None = made["secret"] if show_secret else None
        self._export = made["secret"] if show_secret or output.is_seen_only else '"$(uplift listen --print-secret)"'
        self._types: list[str] = made.get("event_types") or []
        self._target = target
        self._was_ready = False
        self._hinted = False
        output.state(f"Connecting: created the session {self._session}")

    def ready(self) -> None:
        """Report that the stream has started."""
        self._was_ready = True
        what = ", ".join(self._types) or "all event types"
        where = f"forwarded to {self._target.url}" if self._target else "only printed"
        self._output.state(f"Ready: {what}, {where}", "bold green")
        self._output.state(
            f"Events are signed with the secret of your API key, not the secret of an endpoint:"
            f"\n  export UPLIFT_WEBHOOK_SECRET={self._export}"
        )
        if self._output.as_json:
            self._output.json(
                {
                    "kind": "ready",
                    "session": self._session,
                    "event_types": self._types,
                    "forward_to": self._target.url if self._target else None,
                    "secret": self._secret,
                }
            )

    def reconnecting(self, why: str, wait_seconds: float) -> None:
        """Report why there is no connection, and how many seconds remain until the next attempt."""
        state = "Reconnecting" if self._was_ready else "Not connected yet"
        self._output.state(f"{state}: {why}; next attempt in {wait_seconds:.1f} s", "yellow")

    def reconnected(self) -> None:
        """Report that the connection is open again."""
        self._output.state("Reconnected: continuing with the next event", "green")
        if self._output.as_json:
            self._output.json({"kind": "reconnected", "session": self._session})

    def local_away(self, reason: str) -> None:
        """Report that the local server is unreachable."""
        assert self._target is not None, "events are forwarded to it"
        text = f"Cannot connect to {self._target.origin}: {reason}"
        if reason == "connection refused":
            text = f"No server is listening on {self._target.origin}. Start your server: events wait up to 30 seconds."
        self._output.state(text, "yellow")

    def local_back(self) -> None:
        """Report that the local server is reachable again."""
        assert self._target is not None, "events are forwarded to it"
        self._output.state(f"Connected to {self._target.origin}", "green")

    def delivery(self, event: EventFrame, answer: LocalResponse, *, again: bool, comes_again: bool) -> None:
        """Report that an event was forwarded or printed."""
        if self._output.as_json:
            self._output.json(self._object(event, answer, again=again))
        elif self._target is None:
            self._output.line(f"{_now()}  ", (event.type, "bold"), f"  {event.event}")
        else:
            style = "green" if answer.delivered else "red"
            status = str(answer.status_code or "---")
            remarks = [
                *(["test"] if event.test else []),
                *(["forwarded again"] if again else []),
                *(["will be forwarded again"] if comes_again else []),
                *([answer.error] if answer.error else []),
            ]
            remark = f"  ({'; '.join(remarks)})" if remarks else ""
            took = f"  {answer.duration_ms:>5} ms  "
            self._output.line(f"{_now()}  ", (status, style), took, (event.type, "bold"), f"  {event.event}{remark}")
        if answer.status_code in SECRET_DOUBTED and not self._hinted:
            self._hinted = True
            self._output.state(
                f"Your server responded with {answer.status_code}: {DOUBT_HINT}",
                "yellow",
            )

    def _object(self, event: EventFrame, answer: LocalResponse, *, again: bool) -> dict[str, Any]:
        shown = {
            "kind": "delivery",
            "event": event.event,
            "type": event.type,
            "status_code": answer.status_code,
            "duration_ms": answer.duration_ms,
            "duplicate": again,
            "error": answer.error,
            "delivery": event.delivery,
            "created_at": event.created_at,
            "test": event.test,
        }
        if self._target is None:
            shown["error"] = None
            shown["body"] = json.loads(event.body)
        return shown


def _now() -> str:
    return time.strftime("%H:%M:%S")
