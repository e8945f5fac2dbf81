"""Bodies that are not JSON, with the detail of the response."""

import pytest

MALFORMED = [
    pytest.param(b'{"name":', "The JSON is not valid: it is empty or incomplete. Correct the JSON.", id="truncated"),
    pytest.param(b'{"name" 1}', "The JSON is not valid: expected ':' (byte 8). Correct the JSON.", id="no colon"),
    pytest.param(b'{"name": "\xff"}', "The body is not valid UTF-8. Send JSON in UTF-8.", id="no UTF-8"),
    pytest.param(
        b'{"data":' + b"[" * 10_000,
        "The JSON has too many levels of nested objects or lists. Remove some levels.",
        id="deep",
    ),
]
