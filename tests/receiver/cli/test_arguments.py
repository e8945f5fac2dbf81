"""Parsers of targets, durations and shares."""

from datetime import UTC, datetime

import pytest

from uplift_webhooks.cli.listening.target import read_target
from uplift_webhooks.cli.quantities import duration_seconds, share, since


@pytest.mark.parametrize(
    ("written", "url", "authority"),
    [
        ("5000", "http://localhost:5000/", "localhost:5000"),
        (":5000/webhook", "http://localhost:5000/webhook", "localhost:5000"),
        ("5000/webhook", "http://localhost:5000/webhook", "localhost:5000"),
        ("/webhook?x=1", "http://localhost/webhook?x=1", "localhost"),
        ("web:8000", "http://web:8000/", "web:8000"),
        ("localhost/a", "http://localhost/a", "localhost"),
        ("https://localhost/a", "https://localhost/a", "localhost"),
        ("http://[::1]:80/a", "http://[::1]/a", "[::1]"),
        (" http://127.0.0.1:5000/webhook#part ", "http://127.0.0.1:5000/webhook", "127.0.0.1:5000"),
    ],
)
def test_targets(written: str, url: str, authority: str) -> None:
    target = read_target(written)
    assert (target.url, target.authority) == (url, authority)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("ftp://x", "only http:// and https:// are allowed"),
        ("http://", "no host"),
        ("http://u:p@x/", "user name or password"),
        ("http://x:99999", "Port out of range"),
        ("99999", "Port out of range"),
        ("x:0", "port 0 is not allowed"),
        ("http://x/ y", "a space or another character"),
        ("http://x/é", "a space or another character"),
        ("http://[::1", "Invalid IPv6 URL"),
        ("http://a..b", "a label of the host"),
        (".x:5000", "a label of the host"),
        (f"http://{'x' * 64}.test/", "a label of the host"),
        ("", "no host"),
    ],
)
def test_invalid_targets(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_target(written)


def test_durations() -> None:
    assert [duration_seconds(each) for each in ("250ms", "15s", "15m", "1.5h", "2d")] == [0.25, 15, 900, 5400, 172_800]
    for wrong in ("", "15", "m", "-1s", "15 minutes", "1e3s"):
        with pytest.raises(ValueError, match="not a duration"):
            duration_seconds(wrong)


def test_shares() -> None:
    assert [share(each) for each in ("20%", "0.2", "0", "100%", "1")] == [0.2, 0.2, 0, 1, 1]
    for wrong in ("", "%", "20", "-1%", "101%", "nan"):
        with pytest.raises(ValueError, match="not a percentage"):
            share(wrong)


def test_since() -> None:
    now = datetime(2026, 1, 2, 0, 10, tzinfo=UTC)
    assert since("15m", now) == "2026-01-01T23:55:00.000Z"
    assert since(" 2026-01-01T00:00:00Z ", now) == "2026-01-01T00:00:00Z"
    assert since("0197f0c2-0000-7000-8000-000000000001", now) == "0197f0c2-0000-7000-8000-000000000001"
