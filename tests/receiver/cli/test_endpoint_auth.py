"""Options for the authentication to an endpoint, in `uplift` and in `uplift-server`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.cli.fake_api import Request, fake_api
from tests.receiver.cli.test_program import run

ENDPOINT = {"id": "ep_1", "url": "https://a.example", "state": "enabled", "event_types": []}
OAUTH = ("--oauth-token-url", "https://login.example/token", "--oauth-client-id", "uplift")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Record the bodies of requests. A body with the client ID `wrong` is rejected."""
    bodies: list[Any] = []

    def respond(request: Request) -> Any:
        if request.body is None:
            return 200, ENDPOINT, {}
        bodies.append(request.body)
        if (request.body.get("auth") or {}).get("client_id") != "wrong":
            return 200, ENDPOINT, {}
        errors = [
            {"field": "auth.client_id", "code": "required", "message": "Not good."},
            {"field": "auth.token_url", "code": "url_invalid", "message": "Not good."},
        ]
        return 422, {"code": "validation_failed", "status": 422, "errors": errors}, {}

    with fake_api() as server:
        server.respond = respond  # type: ignore[method-assign]
        monkeypatch.setenv("UPLIFT_API_URL", server.url)
        monkeypatch.setenv("UPLIFT_API_KEY", "sk_1")
        yield bodies


@pytest.fixture
def secret(tmp_path: Path) -> str:
    file = tmp_path / "secret.txt"
    file.write_text("s3cret value\n")
    return str(file)


def test_oauth_credentials_come_from_options_and_a_file(sent: list[Any], secret: str) -> None:
    assert run("endpoints", "update", "ep_1", *OAUTH, "--oauth-client-secret-file", secret).exit_code == 0
    auth = {
        "type": "oauth2_client_credentials", "token_url": "https://login.example/token", "client_id": "uplift",
        "client_secret": "s3cret value",
    }  # fmt: skip
    assert sent == [{"auth": auth}]
    scope = ("--oauth-scope", "a:b c")
    done = run("endpoints", "create", "https://a.example", *OAUTH, "--oauth-client-secret-file", secret, *scope)
    assert done.exit_code == 0
    assert sent[1]["auth"] == {**auth, "scope": "a:b c"}


def test_a_certificate_comes_from_files(sent: list[Any], tmp_path: Path) -> None:
    for name in ("client.pem", "client.key"):
        (tmp_path / name).write_text(f"-----BEGIN {name}\n")
    files = (
        "--client-certificate-file",
        str(tmp_path / "client.pem"),
        "--client-key-file",
        str(tmp_path / "client.key"),
    )
    assert run("endpoints", "update", "ep_1", *files).exit_code == 0
    assert sent == [
        {"auth": {"type": "mtls", "certificate": "-----BEGIN client.pem\n", "private_key": "-----BEGIN client.key\n"}}
    ]


def test_an_authentication_is_removed(sent: list[Any]) -> None:
    assert run("endpoints", "update", "ep_1", "--no-auth").exit_code == 0
    assert run("endpoints", "update", "ep_1", "--max-in-flight", "4").exit_code == 0
    assert sent == [{"auth": None}, {"max_in_flight": 4}]
    assert run("endpoints", "create", "https://a.example", "--no-auth").exit_code == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (OAUTH, "--oauth-token-url requires --oauth-client-secret-file"),
        (("--oauth-scope", "a"), "requires --oauth-token-url and --oauth-client-id and --oauth-client-secret-file"),
        (("--client-key-file", "k"), "--client-key-file requires --client-certificate-file"),
        ((*OAUTH, "--client-key-file", "k"), "an endpoint can have only one kind of authentication"),
        ((*OAUTH, "--no-auth"), "--no-auth cannot be combined with --oauth-token-url"),
        (("--client-key-file", "missing", "--client-certificate-file", "missing"), "cannot read missing"),
    ],
)
def test_incomplete_options_are_an_error(sent: list[Any], options: tuple[str, ...], words: str) -> None:
    done = run("endpoints", "update", "ep_1", *options)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert sent == []


def test_a_file_must_be_text(sent: list[Any], tmp_path: Path) -> None:
    (tmp_path / "der").write_bytes(b"\xff\xfe")
    for options in (
        ("--client-certificate-file", str(tmp_path / "der"), "--client-key-file", str(tmp_path / "der")),
        (*OAUTH, "--oauth-client-secret-file", str(tmp_path / "der")),
    ):
        done = run("endpoints", "update", "ep_1", *options)
        assert done.exit_code == 2
        assert "is not UTF-8 text" in " ".join(done.stderr.split())


def test_an_error_names_the_option(sent: list[Any], secret: str) -> None:
    done = run(
        "endpoints", "update", "ep_1", "--oauth-token-url", "x", "--oauth-client-id", "wrong",
        "--oauth-client-secret-file", secret,
    )  # fmt: skip
    assert "--oauth-client-id: Not good" in done.stderr
    assert "correct --oauth-client-id and --oauth-token-url" in " ".join(done.stderr.split())
    assert "s3cret" not in done.stderr
