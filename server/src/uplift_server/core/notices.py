"""Notices: what people are told by mail, and what each kind tells."""

from typing import Final

from uplift_server.core.named import Named


class NoticeKind(Named):
    """What a notice is about. The number is what the store keeps."""

    ENDPOINT_WARNED = 0
    ENDPOINT_DISABLED = 1
    ENDPOINT_RECOVERED = 2
    MASS_FAILURE_BEGAN = 3
    MASS_FAILURE_ENDED = 4


FACTS: Final = {
    NoticeKind.ENDPOINT_WARNED: (
        "endpoint", "url", "description", "account", "failing_since", "failed_attempts", "cause", "remedy", "disable_at"
    ),
    NoticeKind.ENDPOINT_DISABLED: (
        "endpoint", "url", "description", "account", "reason", "failing_since", "failed_attempts", "cause", "remedy"
    ),
    NoticeKind.ENDPOINT_RECOVERED: ("endpoint", "url", "description", "account", "failed_since", "recovered_at"),
    NoticeKind.MASS_FAILURE_BEGAN: ("since", "endpoints", "attempted", "causes"),
    NoticeKind.MASS_FAILURE_ENDED: ("since", "ended_at", "endpoints", "still_failing"),
}  # fmt: skip
"""Which facts a notice of each kind carries.

`endpoint` is the public id, `account` its account's name; instants are Unix ms and may be null where unknown; `cause`
and `remedy` are the two sentences of `core.outcomes.Explanation` for the last failed attempt (empty where there is
none); `reason` is the name of a disabled reason; `endpoints`, `attempted` and `still_failing` are counts; `causes` maps
outcome names to how many endpoints fail so.
"""
