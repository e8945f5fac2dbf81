"""Realistic data for demonstrations and tests: captures of fictional athletes.

The data matches the schemas in the catalog. The same random bytes always result in the same data.
"""

import binascii
import hashlib
from base64 import b64encode
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

from uplift_server.core.ids import ACCOUNT, ENDPOINT, delivery_id, prefixed, uuid_text
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp

LINK_LIFETIME_MS: Final = 7 * 86_400_000
"""Lifetime of the link to a capture's data, in ms, as in Uplift's published example."""

_ATHLETES: Final = (
    ("Mara", "Okonkwo"),
    ("Tomás", "Rivera"),
    ("Ingrid", "Solheim"),
    ("Kenji", "Arakawa"),
    ("Leilani", "Kahale"),
    ("Dominik", "Wójcik"),
    ("Priya", "Raman"),
    ("Caleb", "Whitfield"),
    ("Noor", "Haddad"),
    ("Jae-won", "Lim"),
    ("Amélie", "Fournier"),
    ("Marcus", "Delacroix"),
)
# Each row contains the activity, the movement, and the position of the athlete.
_MOVEMENTS: Final = (
    ("baseball", "pitching", "pitcher"),
    ("baseball", "hitting", "shortstop"),
    ("golf", "full_swing", None),
    ("jump", "countermovement", None),
    ("jump", "single_leg", None),
    ("agility", "cutting", None),
    ("stability", "y_balance_lower_quarter", None),
    ("track_and_field", "discus", None),
    ("track_and_field", "high_jump", None),
)
_ERRORS: Final = (
    "Pose QA failed: the athlete leaves the frame during the movement",
    "Pose QA failed: a second person is in front of the athlete",
    "Biomech QA failed: a forearm is longer than 0.5 m",
    "The video from the secondary camera ends before the movement does",
)
_LEVELS: Final = ("youth", "high_school", "college", "professional")
_SIDES: Final = ("left", "right")
_ATTRIBUTES: Final = ("height", "weight", "level", "positions", "dominant_arm")
_CAUSE: Final = {
    "cause_code": "status_503",
    "cause": "503 Service Unavailable",
    "fix": "Restore your server; retries continue on schedule, and you can resend failed deliveries.",
}
_DASHBOARD: Final = "https://webhooks.uplift.example"
_DAY_MS: Final = 86_400_000
_CLOUDFRONT_BASE64: Final = bytes.maketrans(b"+=/", b"-_~")
_SIGNATURE_BYTES: Final = 256

_Item = TypeVar("_Item")


def sample_data(name: str, now_ms: int, random_bytes: bytes) -> dict[str, object]:
    """Return the `data` of a fictional event that occurs at `now_ms` (Unix ms). `name` is a built-in event type.

    Pass at least 8 random bytes to get different data on each call. Raises KeyError for types that are not built in.
    """
    return {"object": _GENERATORS[name](_Random(random_bytes), now_ms)}


class _Random:
    """An endless sequence of random choices, derived from random bytes."""

    def __init__(self, random_bytes: bytes) -> None:
        self._random_bytes = random_bytes
        self._count = 0

    def bytes(self, length: int) -> bytes:
        drawn = b""
        while len(drawn) < length:
            drawn += hashlib.sha256(b"%b/%d" % (self._random_bytes, self._count)).digest()
            self._count += 1
        return drawn[:length]

    def number(self, first: int, last: int) -> int:
        return first + int.from_bytes(self.bytes(8), "big") % (last - first + 1)

    def of(self, items: Sequence[_Item]) -> _Item:
        return items[self.number(0, len(items) - 1)]

    def uuid(self) -> str:
        return _uuid(self.bytes(16), version=4)


def _uuid(value: bytes, version: int) -> str:
    return uuid_text(
        value[:6] + bytes((value[6] & 0x0F | version << 4, value[7], value[8] & 0x3F | 0x80)) + value[9:16]
    )


def _named_uuid(name: str) -> str:
    """Return a UUID that depends only on a name, so that an athlete has the same ID in every sample."""
    return _uuid(hashlib.sha256(name.encode()).digest(), version=5)


_ORGANIZATION: Final = _named_uuid("organization")
_OWNER: Final = _named_uuid("owner")


def _link(draws: _Random, now_ms: int) -> dict[str, object]:
    """Return a fictional signed link to an export, and the time when the link expires."""
    expires = now_ms + LINK_LIFETIME_MS
    # In the sample, the file is one second older than the event, and its folder has the ID of the owner.
    stamp = datetime.fromtimestamp(now_ms // 1000 - 1, UTC).strftime("%Y%m%d%H%M%S")
    signature = b64encode(draws.bytes(_SIGNATURE_BYTES)).translate(_CLOUDFRONT_BASE64).decode("ascii")
    key = binascii.hexlify(draws.bytes(3)).decode("ascii").upper()
    return {
        "url": f"https://data.uplift.example/{_OWNER}/uplift_data_export_{stamp}.csv"
        f"?Expires={expires // 1000}&Key-Pair-Id=KEXAMPLE{key}&Signature={signature}",
        "expires": expires,
    }


def _session(draws: _Random) -> str:
    """Return the ID of a capture, which consists of a session ID and a repetition number."""
    return f"{draws.uuid()}_{draws.number(1, 6)}"


def _movement_analytics_created(draws: _Random, now_ms: int) -> dict[str, object]:
    activity, movement, _ = draws.of(_MOVEMENTS)
    name = " ".join(draws.of(_ATHLETES))
    return {
        "id": _session(draws),
        "activity": activity,
        "movement": movement,
        "data": _link(draws, now_ms),
        "organization": {
            "id": {"organizationId": _ORGANIZATION, "userId": _OWNER, "roleName": "owner"},
            "user": _OWNER,
        },
        "athlete": {"id": _named_uuid(name), "name": name, "ebis_id": None, "mlbam_id": None},
    }


def _webhook_created(draws: _Random, _now_ms: int) -> dict[str, object]:
    return {
        "id": draws.uuid(),
        "userId": _OWNER,
        "accountId": _ORGANIZATION,
        "eventTypeIds": ["movement.analytics.created"],
        "hookUrl": "https://lab.example/webhook/submit",
        "description": draws.of(("Kinematics for our warehouse", "Reports for the coaches", "Athlete profiles")),
    }


def _capture_processing_failed(draws: _Random, now_ms: int) -> dict[str, object]:
    activity, movement, _ = draws.of(_MOVEMENTS)
    name = " ".join(draws.of(_ATHLETES))
    return {
        "id": _session(draws),
        "activity": activity,
        "movement": movement,
        "status": "error",
        "error": draws.of(_ERRORS),
        "capture_time": format_timestamp(now_ms - draws.number(120_000, 900_000)),
        "athlete": {"id": _named_uuid(name), "name": name},
    }


def _athlete_created(draws: _Random, _now_ms: int) -> dict[str, object]:
    activity, _, position = draws.of(_MOVEMENTS)
    first_name, last_name = draws.of(_ATHLETES)
    return {
        "id": _named_uuid(f"{first_name} {last_name}"),
        "first_name": first_name,
        "last_name": last_name,
        "height": draws.number(62, 80),
        "weight": draws.number(110, 240),
        "dominant_arm": draws.of(_SIDES),
        "dominant_leg": draws.of(_SIDES),
        "primary_activity": activity,
        "positions": [] if position is None else [position],
        "level": draws.of(_LEVELS),
        "custom_attributes": {"squad": draws.of(("blue", "white", "rehab"))},
    }


def _athlete_updated(draws: _Random, now_ms: int) -> dict[str, object]:
    return {**_athlete_created(draws, now_ms), "changed": sorted({draws.of(_ATTRIBUTES), draws.of(_ATTRIBUTES)})}


def _export_completed(draws: _Random, now_ms: int) -> dict[str, object]:
    activity, movement, _ = draws.of(_MOVEMENTS)
    end = now_ms // 1000
    return {
        "jobId": draws.uuid(),
        "status": "COMPLETED",
        "activity": activity,
        "movement": movement,
        "startTime": end - 7 * 86_400,
        "endTime": end,
        "rowCount": draws.number(400, 48_000),
        "createdAt": format_timestamp(now_ms - draws.number(3_000, 90_000)),
        "completedAt": format_timestamp(now_ms),
        "data": _link(draws, now_ms),
    }


def _subject(draws: _Random) -> dict[str, object]:
    return {
        "url": "https://lab.example/webhook/submit",
        "description": draws.of(("Kinematics for our warehouse", "Reports for the coaches", "Athlete profiles")),
        "account": prefixed(ACCOUNT, draws.bytes(16)),
        "account_uid": None,
        "account_name": draws.of(("Riverside Performance Lab", "Northfield Athletics", "Harbor Sports Institute")),
    }


def _endpoint_event(
    draws: _Random, now_ms: int, *, state: str = "enabled", is_failing: bool = True, **times: int | None
) -> dict[str, object]:
    endpoint = prefixed(ENDPOINT, draws.bytes(16))
    cause = _CAUSE if is_failing else dict.fromkeys(_CAUSE)
    return {
        "id": endpoint,
        "uid": None,
        **_subject(draws),
        "state": state,
        "disabled_reason": "failing" if state == "disabled" else None,
        "failing_since": format_timestamp(now_ms - draws.number(3, 5) * _DAY_MS),
        "disable_at": format_optional_timestamp(times.get("disable_at")),
        "recovered_at": format_optional_timestamp(times.get("recovered_at")),
        "failed_attempts": draws.number(20, 400) if is_failing else 0,
        **cause,
        "dashboard_url": f"{_DASHBOARD}/endpoints/{endpoint}",
    }


def _endpoint_warned(draws: _Random, now_ms: int) -> dict[str, object]:
    return _endpoint_event(draws, now_ms, disable_at=now_ms + 2 * _DAY_MS)


def _endpoint_disabled(draws: _Random, now_ms: int) -> dict[str, object]:
    return _endpoint_event(draws, now_ms, state="disabled")


def _endpoint_recovered(draws: _Random, now_ms: int) -> dict[str, object]:
    return _endpoint_event(draws, now_ms, is_failing=False, recovered_at=now_ms)


def _delivery_failed(draws: _Random, now_ms: int) -> dict[str, object]:
    event, endpoint = draws.bytes(16), draws.bytes(16)
    delivery = delivery_id(event, endpoint)
    return {
        "id": delivery,
        "endpoint": prefixed(ENDPOINT, endpoint),
        "endpoint_uid": None,
        **_subject(draws),
        "event": uuid_text(event),
        "event_type": "movement.analytics.created",
        "failed_reason": "exhausted",
        "attempts_made": 10,
        "failed_at": format_timestamp(now_ms),
        "count": draws.number(1, 60),
        "first_failed_at": format_timestamp(now_ms - draws.number(1_000, 50_000)),
        **_CAUSE,
        "dashboard_url": f"{_DASHBOARD}/deliveries/{delivery}",
    }


_GENERATORS: Final[dict[str, Callable[[_Random, int], dict[str, object]]]] = {
    "movement.analytics.created": _movement_analytics_created,
    "webhook.created": _webhook_created,
    "capture.processing.failed": _capture_processing_failed,
    "athlete.created": _athlete_created,
    "athlete.updated": _athlete_updated,
    "export.completed": _export_completed,
    "endpoint.warned": _endpoint_warned,
    "endpoint.disabled": _endpoint_disabled,
    "endpoint.recovered": _endpoint_recovered,
    "delivery.failed": _delivery_failed,
}
