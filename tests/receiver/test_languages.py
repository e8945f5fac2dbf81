"""Verifiers in other languages agree with the library: public packages, docs/receiving.md and Uplift's article."""

import json
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from uplift_server.core.security.signing import standard_form
from uplift_webhooks import Webhook
from uplift_webhooks.testing import sign

from .toolchains import PAGE, Program, ProgramInput, program

VECTORS = json.loads((Path(__file__).parents[2] / "docs/vectors.json").read_text(encoding="utf-8"))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
CHOSEN = "e4a1" * 10
BODY = '{"id":"0197f0c2-0000-7000-8000-000000000001","type":"t.u","data":{"object":{"name":"Zoë 🏀","v":1.0}}}'.encode()

PAGE_LANGUAGES = ("node", "go", "java", "ruby", "php", "dotnet")
ARTICLE_LANGUAGES = ("node", "ruby")
PACKAGES = ("standardwebhooks", "svix")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Program]:
    """Return a function that returns the program of a language. It builds each program once."""
    return cache(lambda language: program(language, tmp_path_factory.mktemp(language.replace(" ", "-"))))


@pytest.fixture
def documented(request: pytest.FixtureRequest, programs: Callable[[str], Program]) -> Program:
    """The program of a language that has a snippet in docs/receiving.md."""
    return programs(request.param)


def _input(verifier: str, vector: dict[str, Any], secret: str) -> ProgramInput:
    return ProgramInput(verifier, secret, vector["body"].encode(), vector.get("now", VECTORS["now"]), vector["headers"])


def _outputs(run: Program, inputs: list[ProgramInput]) -> list[str]:
    outputs = run(inputs)
    assert len(outputs) == len(inputs)
    return outputs


def _vector_outputs(run: Program, verifier: str, as_shown: Callable[[str], str]) -> dict[str, str]:
    vectors = [*VECTORS["verified"], *VECTORS["refused"]]
    inputs = [_input(verifier, each, as_shown(each["secret"])) for each in vectors]
    return dict(zip((each["name"] for each in vectors), _outputs(run, inputs), strict=True))


@pytest.mark.parametrize("documented", PAGE_LANGUAGES, indirect=True)
def test_the_pages_verifiers_accept_and_reject_the_vectors(documented: Program) -> None:
    outputs = _vector_outputs(documented, "guide", str)

    accepted = {each["name"]: "true" for each in VECTORS["verified"]}
    assert outputs == accepted | {each["name"]: "false" for each in VECTORS["refused"]}


def test_every_language_of_the_page_is_tested() -> None:
    fences = {line[3:].strip() for line in PAGE.splitlines() if line.startswith("```") and line != "```"}

    assert fences - {"python", "sh", "http"} == {"js", "go", "java", "ruby", "php", "csharp"}


@pytest.mark.parametrize("package", PACKAGES)
def test_npm_packages_accept_and_reject_the_vectors(package: str, programs: Callable[[str], Program]) -> None:
    outputs = _vector_outputs(programs("node with packages"), package, standard_form)

    assert {outputs.pop(each["name"]) for each in VECTORS["verified"]} == {"true"}
    # The packages throw verification errors, not an error of a missing library.
    reasons = {"No matching signature found", "Missing required headers", "Message timestamp too old"}
    reasons |= {"Message timestamp too new", "Invalid Signature Headers"}
    assert {output.removeprefix("error: ") for output in outputs.values()} <= reasons
    assert len(outputs) == len(VECTORS["refused"])


@pytest.mark.parametrize("package", PACKAGES)
def test_npm_packages_verify_our_current_requests(package: str, programs: Callable[[str], Program]) -> None:
    now = int(time.time())
    headers = sign(BODY, [SECRET, CHOSEN])
    inputs = [
        ProgramInput(package, shown, body, now, headers)
        for shown in (SECRET, standard_form(CHOSEN))
        for body in (BODY, BODY.replace(b"1.0", b"1"), BODY + b"\n")
    ]

    rejected = "error: No matching signature found"
    assert _outputs(programs("node with packages"), inputs) == ["true", rejected, rejected] * 2


@pytest.mark.parametrize("package", PACKAGES)
def test_we_verify_requests_signed_by_npm_packages(package: str, programs: Callable[[str], Program]) -> None:
    now = int(time.time())
    stamped = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    shown = {SECRET: SECRET, CHOSEN: standard_form(CHOSEN)}

    inputs = [ProgramInput(f"{package} signs", each, BODY, now, stamped) for each in shown.values()]
    signatures = _outputs(programs("node with packages"), inputs)

    for secret, signature in zip(shown, signatures, strict=True):
        assert Webhook(secret).unwrap(BODY, {**stamped, "webhook-signature": signature}).raw == json.loads(BODY)


@pytest.mark.parametrize("language", ARTICLE_LANGUAGES)
def test_the_articles_functions_verify_our_requests(language: str, programs: Callable[[str], Program]) -> None:
    right = [_input("article", each, each["signing_secrets"][0]) for each in VECTORS["verified"]]
    header = right[0].headers["x-uplift-signature-256"]
    wrong = [
        ProgramInput("article", CHOSEN, right[0].body, 0, right[0].headers),
        ProgramInput("article", right[0].secret, right[0].body + b"\n", 0, right[0].headers),
        ProgramInput("article", right[0].secret, right[0].body, 0, {"x-uplift-signature-256": header[:-1]}),
        ProgramInput("article", right[0].secret, right[0].body, 0, {"x-uplift-signature-256": header.upper()}),
        ProgramInput("article", right[0].secret, right[0].body, 0),
    ]

    outputs = _outputs(programs(language), right + wrong)

    assert outputs[: len(right)] == ["true"] * len(right)
    # The functions throw if they cannot compare the signatures.
    assert all(output == "false" or output.startswith("error: ") for output in outputs[len(right) :])
    assert outputs[len(right) :][:2] == ["false", "false"]
