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

from .toolchains import PAGE, Program, Question, program

VECTORS = json.loads((Path(__file__).parents[2] / "docs/vectors.json").read_text(encoding="utf-8"))
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
CHOSEN = "e4a1" * 10
BODY = '{"id":"0197f0c2-0000-7000-8000-000000000001","type":"t.u","data":{"object":{"name":"Zoë 🏀","v":1.0}}}'.encode()

OF_THE_PAGE = ("node", "go", "java", "ruby", "php", "dotnet")
OF_THE_ARTICLE = ("node", "ruby")
PACKAGES = ("standardwebhooks", "svix")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Program]:
    """The program of each language, built once."""
    return cache(lambda language: program(language, tmp_path_factory.mktemp(language.replace(" ", "-"))))


@pytest.fixture
def documented(request: pytest.FixtureRequest, programs: Callable[[str], Program]) -> Program:
    """The program of a language that has a snippet in docs/receiving.md."""
    return programs(request.param)


def _question(verifier: str, vector: dict[str, Any], secret: str) -> Question:
    return Question(verifier, secret, vector["body"].encode(), vector.get("now", VECTORS["now"]), vector["headers"])


def _answers(asked: Program, questions: list[Question]) -> list[str]:
    answers = asked(questions)
    assert len(answers) == len(questions)
    return answers


def _of_all_vectors(asked: Program, verifier: str, as_shown: Callable[[str], str]) -> dict[str, str]:
    vectors = [*VECTORS["verified"], *VECTORS["refused"]]
    questions = [_question(verifier, each, as_shown(each["secret"])) for each in vectors]
    return dict(zip((each["name"] for each in vectors), _answers(asked, questions), strict=True))


@pytest.mark.parametrize("documented", OF_THE_PAGE, indirect=True)
def test_the_pages_verifiers_accept_and_reject_the_vectors(documented: Program) -> None:
    answers = _of_all_vectors(documented, "guide", str)

    taken = {each["name"]: "true" for each in VECTORS["verified"]}
    assert answers == taken | {each["name"]: "false" for each in VECTORS["refused"]}


def test_every_language_of_the_page_is_tested() -> None:
    fences = {line[3:].strip() for line in PAGE.splitlines() if line.startswith("```") and line != "```"}

    assert fences - {"python", "sh", "http"} == {"js", "go", "java", "ruby", "php", "csharp"}


@pytest.mark.parametrize("package", PACKAGES)
def test_npm_packages_take_and_refuse_the_vectors(package: str, programs: Callable[[str], Program]) -> None:
    answers = _of_all_vectors(programs("node with packages"), package, standard_form)

    assert {answers.pop(each["name"]) for each in VECTORS["verified"]} == {"true"}
    # They throw a verification error, not because the library is missing.
    reasons = {"No matching signature found", "Missing required headers", "Message timestamp too old"}
    reasons |= {"Message timestamp too new", "Invalid Signature Headers"}
    assert {answer.removeprefix("error: ") for answer in answers.values()} <= reasons
    assert len(answers) == len(VECTORS["refused"])


@pytest.mark.parametrize("package", PACKAGES)
def test_npm_packages_verify_ours_at_this_moment(package: str, programs: Callable[[str], Program]) -> None:
    now = int(time.time())
    headers = sign(BODY, [SECRET, CHOSEN])
    questions = [
        Question(package, shown, body, now, headers)
        for shown in (SECRET, standard_form(CHOSEN))
        for body in (BODY, BODY.replace(b"1.0", b"1"), BODY + b"\n")
    ]

    refused = "error: No matching signature found"
    assert _answers(programs("node with packages"), questions) == ["true", refused, refused] * 2


@pytest.mark.parametrize("package", PACKAGES)
def test_we_verify_what_npm_packages_sign(package: str, programs: Callable[[str], Program]) -> None:
    now = int(time.time())
    stamped = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
    shown = {SECRET: SECRET, CHOSEN: standard_form(CHOSEN)}

    questions = [Question(f"{package} signs", each, BODY, now, stamped) for each in shown.values()]
    signatures = _answers(programs("node with packages"), questions)

    for secret, signature in zip(shown, signatures, strict=True):
        assert Webhook(secret).unwrap(BODY, {**stamped, "webhook-signature": signature}).raw == json.loads(BODY)


@pytest.mark.parametrize("language", OF_THE_ARTICLE)
def test_the_articles_functions_verify_ours(language: str, programs: Callable[[str], Program]) -> None:
    right = [_question("article", each, each["signing_secrets"][0]) for each in VECTORS["verified"]]
    header = right[0].headers["x-uplift-signature-256"]
    wrong = [
        Question("article", CHOSEN, right[0].body, 0, right[0].headers),
        Question("article", right[0].secret, right[0].body + b"\n", 0, right[0].headers),
        Question("article", right[0].secret, right[0].body, 0, {"x-uplift-signature-256": header[:-1]}),
        Question("article", right[0].secret, right[0].body, 0, {"x-uplift-signature-256": header.upper()}),
        Question("article", right[0].secret, right[0].body, 0),
    ]

    answers = _answers(programs(language), right + wrong)

    assert answers[: len(right)] == ["true"] * len(right)
    # It throws if it cannot compare the signatures.
    assert all(answer == "false" or answer.startswith("error: ") for answer in answers[len(right) :])
    assert answers[len(right) :][:2] == ["false", "false"]
