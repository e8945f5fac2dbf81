"""The demo as a separate process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import urllib3

pytestmark = pytest.mark.sqlite(reason="the demo uses its own SQLite database")

PROGRAM = str(Path(sys.executable).with_name("uplift-server"))
SECONDS_MAX = 60


def demo(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "demo", "--port", "0", *arguments],
        cwd=cwd,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def test_fifty_events_arrive_and_are_verified_at_both_receivers(tmp_path: Path) -> None:
    result = demo("--events", "50", "--rate", "100", "--json", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    *attempts, summary = [json.loads(line) for line in result.stdout.splitlines()]
    assert summary["kind"] == "summary"
    assert summary["complete"] is True
    assert (summary["sent"], summary["steady_verified"], summary["shaky_verified"]) == (50, 50, 50)
    assert summary["unverified"] == summary["unfinished"] == 0
    # Only the shaky receiver fails some attempts, and the server retries only those.
    assert summary["failed_attempts"] > 0
    failed = [each for each in attempts if not 200 <= each["status_code"] < 300]
    assert len(failed) == summary["failed_attempts"]
    assert {each["receiver"] for each in failed} == {"shaky"}
    assert {each["status_code"] for each in failed} == {302, 500}
    assert all(each["verified"] for each in attempts)
    assert len(attempts) == 2 * (50 + 1) + len(failed) + summary["duplicates"]
    assert list(tmp_path.iterdir()) == []


def test_demo_prints_lines_and_a_summary_and_ignores_the_environment(tmp_path: Path) -> None:
    data = tmp_path / "kept"
    result = demo(
        "--events", "5", "--data-dir", str(data), cwd=tmp_path, UPLIFT_RETRY_SCHEDULE="", UPLIFT_NO_SUCH="1"
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 of 5 events at the steady receiver, 5 of 5 at the shaky receiver" in result.stdout
    assert "p50" in result.stdout
    links = re.findall(r"^  as the .* http://127\.0\.0\.1:\d+/(\w+)/[\w-]{16}$", result.stdout, re.MULTILINE)
    assert links == ["owner", "operator"]
    assert "\x1b" not in result.stdout
    assert (data / "uplift.db").exists()
    # The demo can continue with the stored data.
    assert demo("--events", "1", "--data-dir", str(data), cwd=tmp_path).returncode == 0


def test_printed_links_open_the_dashboard(tmp_path: Path) -> None:
    """A link works any number of times. It leads to a page with a confirmation button, which sets the cookie."""
    process = subprocess.Popen(
        [PROGRAM, "demo", "--port", "0"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        found: list[str] = []
        for line in process.stdout:
            found += re.findall(r"http://[\d.:]+/(?:owner|operator)/[\w-]+", line)
            if len(found) == 2:
                break
        for _ in range(2):
            assert [re.sub("acc_.*", "", opened(link)) for link in found] == ["/accounts/", "/operator"]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS_MAX)
        assert process.returncode == 0
    finally:
        process.kill()


def opened(link: str) -> str:
    """Open a printed link and confirm, as a person does. Return the path of the page that follows."""
    redirect = urllib3.request("GET", link, redirect=False)
    assert redirect.status == 303
    link = redirect.headers["location"]
    base = link.partition("/enter/")[0]
    form_page = urllib3.request("GET", link, redirect=False)
    assert form_page.status == 200
    [token] = set(re.findall(r'name="csrf" value="([^"]+)"', form_page.data.decode()))
    headers = {"cookie": _cookies(form_page), "origin": base, "content-type": "application/x-www-form-urlencoded"}
    entered = urllib3.request("POST", link, body=urlencode({"csrf": token}), headers=headers, redirect=False)
    assert entered.status == 303, entered.data
    home = urllib3.request("GET", f"{base}/", headers={"cookie": _cookies(entered)}, redirect=False)
    assert home.status == 303
    return str(home.headers["location"])


def _cookies(response: urllib3.BaseHTTPResponse) -> str:
    """Return the cookies that a browser would send."""
    return "; ".join(each.partition(";")[0] for each in response.headers.getlist("set-cookie"))


def test_one_endpoint_keeps_failing(tmp_path: Path) -> None:
    """Its circuit breaker opens and its backlog grows. Endpoints of an earlier run do not remain."""
    data = tmp_path / "kept"
    assert demo("--events", "1", "--data-dir", str(data), cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        [PROGRAM, "demo", "--port", "0", "--data-dir", str(data), "--rate", "30"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = None
        while found is None:
            found = re.search(r"Bearer (sk_\w+)' '(http://[\d.:]+)/", process.stdout.readline())
        key, server = found.groups()

        def items(path: str) -> list[dict[str, Any]]:
            response = urllib3.request("GET", f"{server}/v1/{path}", headers={"authorization": f"Bearer {key}"})
            return list(response.json()["data"])

        until = time.monotonic() + SECONDS_MAX
        while process.stdout.readline():
            endpoints = {each["description"]: each for each in items("endpoints")}
            down = endpoints.get("Fails for minutes at a time")
            waiting = items(f"deliveries?status=pending&endpoint={down['id']}&limit=50") if down else []
            if len(waiting) == 50 or time.monotonic() > until:
                break
        assert len(items("endpoints")) == 3
        assert len(waiting) == 50
        assert down is not None
        assert down["health"]["status"] == "failing"
        assert down["health"]["failing_since"] is not None
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def test_demo_without_a_number_runs_until_stopped(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [PROGRAM, "demo", "--port", "0", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen = set()
    for line in process.stdout:
        attempt = json.loads(line)
        if attempt["type"] != "webhook.created":
            seen.add(attempt["event"])
        if len(seen) >= 5:
            break
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    rest, errors = process.communicate(timeout=SECONDS_MAX)
    summary = json.loads(rest.splitlines()[-1])
    assert process.returncode == 0, errors
    assert summary["complete"] is True
    assert summary["sent"] >= 5
    assert time.monotonic() - began < 20
