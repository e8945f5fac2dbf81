"""ID tokens: headers, keys and claims, valid and forged."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.core.security import id_tokens
from uplift_server.core.security.id_tokens import CLOCK_SKEW_MS, Identity, TokenHeader
from uplift_server.core.security.oidc import TRANSACTION_MS, OidcClient

NOW = 1_764_000_000_000
SECONDS = NOW // 1000
CLIENT = OidcClient(
    "https://login.example.com", "uplift", "secret", "https://hooks.example.com/callback", "operators", None
)
CLAIMS: dict[str, Any] = {
    "iss": CLIENT.issuer,
    "sub": "248289761001",
    "aud": "uplift",
    "exp": SECONDS + 300,
    "iat": SECONDS,
    "nonce": "n",
}
RSA = {"kty": "RSA", "kid": "r", "n": "n" * 342, "e": "AQAB"}
EC = {"kty": "EC", "kid": "e", "crv": "P-256", "use": "sig", "alg": "ES256"}
OKP = {"kty": "OKP", "kid": "o", "crv": "Ed25519", "alg": "EdDSA"}


def header(**values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=") + ".e30.c2ln"


def wrong(**changes: Any) -> str | None:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return id_tokens.check_claims(claims, CLIENT, "n", NOW)


def identity(**claims: Any) -> Identity:
    return id_tokens.identity_of(CLAIMS | claims, CLIENT)


def test_a_header_names_the_algorithm_and_the_key() -> None:
    assert id_tokens.read_header(header(alg="RS256", kid="k", typ="JWT")) == TokenHeader("RS256", "k")
    assert id_tokens.read_header(header(alg="EdDSA", kid=1)) == TokenHeader("EdDSA", None)


@pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS1", "PS256", "", None, 1, ["RS256"], "ES256K"])
def test_other_algorithms_are_rejected(algorithm: Any) -> None:
    assert "the algorithm (alg) is not one of RS256, ES256, EdDSA, Ed25519" in id_tokens.read_header(
        header(alg=algorithm)
    )


@pytest.mark.parametrize("token", ["", "é.a.b", "a.b.c", "bnVsbA.a.b", "W10.a.b", header()[1:]])
def test_other_texts_are_rejected(token: str) -> None:
    assert isinstance(id_tokens.read_header(token), str)


@given(st.text())
def test_any_text_has_a_header_or_a_reason(token: str) -> None:
    assert isinstance(id_tokens.read_header(token), str | TokenHeader)


@pytest.mark.parametrize(
    ("algorithm", "key_id", "found"),
    [
        ("RS256", "r", [RSA]),
        ("RS256", None, [RSA]),
        ("RS256", "e", []),
        ("ES256", "e", [EC]),
        ("ES256", "r", []),
        ("EdDSA", None, [OKP]),
        ("Ed25519", "o", [OKP]),
    ],
)
def test_a_key_must_match_the_header(algorithm: str, key_id: str | None, found: list[Any]) -> None:
    keys = {"keys": [RSA, EC, OKP, "text", {"kty": "oct", "k": "c2VjcmV0"}]}
    assert id_tokens.usable_keys(keys, TokenHeader(algorithm, key_id)) == found


@pytest.mark.parametrize("change", [{"use": "enc"}, {"alg": "RS512"}, {"n": "n" * 171}, {"n": None}, {"kty": "oct"}])
def test_keys_for_another_use_and_weak_keys_are_not_used(change: dict[str, Any]) -> None:
    assert id_tokens.usable_keys({"keys": [RSA | change]}, TokenHeader("RS256", "r")) == []


@pytest.mark.parametrize(("key", "algorithm"), [(EC | {"crv": "P-384"}, "ES256"), (OKP | {"crv": "X25519"}, "EdDSA")])
def test_keys_of_another_curve_are_not_used(key: dict[str, Any], algorithm: str) -> None:
    del key["alg"]
    assert id_tokens.usable_keys({"keys": [key]}, TokenHeader(algorithm, None)) == []


def test_the_number_of_keys_is_limited() -> None:
    assert len(id_tokens.usable_keys({"keys": [RSA] * 50}, TokenHeader("RS256", None))) == 5
    assert id_tokens.usable_keys({"keys": [EC] * 100 + [RSA]}, TokenHeader("RS256", None)) == []
    assert id_tokens.usable_keys({"keys": {}}, TokenHeader("RS256", None)) == []


def test_usable_keys_are_counted() -> None:
    keys = [RSA, EC, OKP, "text", {"kty": "oct", "k": "c2VjcmV0"}, RSA | {"use": "enc"}]
    assert [id_tokens.count_usable_keys({"keys": each}) for each in (keys, [], "text")] == [3, 0, 0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": ["uplift"]},
        {"aud": ["uplift", "other"], "azp": "uplift"},
        {"azp": "uplift"},
        {"exp": SECONDS + 0.5 - CLOCK_SKEW_MS / 1000},
        {"iat": SECONDS + CLOCK_SKEW_MS / 1000},
        {"iat": SECONDS - (TRANSACTION_MS + CLOCK_SKEW_MS) / 1000},
        {"sub": "CN=Ann Rivers"},
    ],
)
def test_valid_claims_are_accepted(changes: dict[str, Any]) -> None:
    assert wrong(**changes) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://login.example.com/"}, "(iss)"),
        ({"iss": ["https://login.example.com"]}, "(iss)"),
        ({"iss": None}, "(iss)"),
        ({"sub": None}, "(sub)"),
        ({"sub": ""}, "(sub)"),
        ({"sub": " "}, "(sub)"),
        ({"sub": "a" * 256}, "(sub)"),
        ({"sub": "a\nb"}, "(sub)"),
        ({"sub": 1}, "(sub)"),
        ({"aud": "other"}, "(aud, azp)"),
        ({"aud": None}, "(aud, azp)"),
        ({"aud": ["other"]}, "(aud, azp)"),
        ({"aud": ["uplift", "other"]}, "(aud, azp)"),
        ({"aud": ["uplift", "other"], "azp": "other"}, "(aud, azp)"),
        ({"azp": "other"}, "(aud, azp)"),
        ({"exp": SECONDS - CLOCK_SKEW_MS / 1000}, "(exp)"),
        ({"exp": None}, "(exp)"),
        ({"exp": str(SECONDS + 300)}, "(exp)"),
        ({"exp": True}, "(exp)"),
        ({"exp": float("inf")}, "(exp)"),
        ({"exp": float("nan")}, "(exp)"),
        ({"iat": None}, "(iat)"),
        ({"iat": -1}, "(iat)"),
        ({"iat": SECONDS + CLOCK_SKEW_MS / 1000 + 1}, "(iat)"),
        ({"iat": SECONDS - (TRANSACTION_MS + CLOCK_SKEW_MS) / 1000 - 1}, "(iat)"),
        ({"nonce": None}, "nonce"),
        ({"nonce": "m"}, "nonce"),
    ],
)
def test_other_claims_are_rejected(changes: dict[str, Any], reason: str) -> None:
    found = wrong(**changes)
    assert found is not None
    assert reason in found


@pytest.mark.parametrize("verified", [{"email_verified": True}, {"email_verified": "true"}, {"xms_edov": 1}])
def test_a_verified_email_is_the_email_in_lower_case(verified: dict[str, Any]) -> None:
    assert identity(email=" Ann@Example.com", **verified).email == "ann@example.com"


@pytest.mark.parametrize(
    "claims",
    [
        {"email": "ann@example.com"},
        {"email": "ann@example.com", "email_verified": False},
        {"email": "ann@example.com", "email_verified": "false"},
        {"email": "ann@example.com", "email_verified": [True]},
        {"email": "no address", "email_verified": True},
        # In lower case, the Kelvin sign is the letter k.
        {"email": "mar\u212ao@example.com", "email_verified": True},
        {"email": None, "email_verified": True},
        {"email": ["ann@example.com"], "email_verified": True},
        {"email_verified": True},
    ],
)
def test_any_other_email_is_not_used(claims: dict[str, Any]) -> None:
    assert identity(**claims).email is None


@pytest.mark.parametrize(
    ("claims", "name", "title"),
    [
        ({"name": " Ann "}, "Ann", "Ann"),
        ({"name": "a\nb", "preferred_username": "ann"}, "ann", "ann"),
        ({"name": " ", "email": "a@b.example", "email_verified": True}, "a@b.example", "a@b.example"),
        ({"name": "Ann", "email": "a@b.example", "email_verified": True}, "Ann", "Ann <a@b.example>"),
        ({"name": 7, "sub": "s" * 255}, "s" * 200, "s" * 200),
    ],
)
def test_a_person_always_has_a_name(claims: dict[str, Any], name: str, title: str) -> None:
    found = identity(**claims)
    assert (found.name, id_tokens.operator_name(found)) == (name, title)


@pytest.mark.parametrize(
    ("groups", "is_operator"),
    [
        (["staff", "operators"], True),
        ("operators", True),
        (["operators2"], False),
        ("staff operators", False),
        ([["operators"]], False),
        ({"operators": 1}, False),
        (None, False),
        (["x"] * 10_000 + ["operators"], False),
    ],
)
def test_operators_are_in_the_group(groups: Any, is_operator: bool) -> None:
    assert identity(groups=groups).is_operator == is_operator


def test_without_a_group_no_person_is_an_operator() -> None:
    client = replace(CLIENT, operator_group=None)
    assert not id_tokens.identity_of(CLAIMS | {"groups": [None, ""]}, client).is_operator
    assert not id_tokens.identity_of(CLAIMS, client).is_operator
    assert not id_tokens.needs_userinfo({"email": "a@b.example"}, client)


@pytest.mark.parametrize("operator_group", ["operators", None])
@pytest.mark.parametrize(
    ("groups", "is_operator"),
    [(["staff", "support"], True), ("support", True), (["support2"], False), ([None, ""], False), (None, False)],
)
def test_members_of_the_read_only_group_are_read_only_operators(
    operator_group: str | None, groups: Any, is_operator: bool
) -> None:
    client = replace(CLIENT, operator_group=operator_group, read_only_group="support")
    found = id_tokens.identity_of(CLAIMS | {"groups": groups}, client)
    assert (found.is_operator, found.is_read_only) == (is_operator, is_operator)
    assert id_tokens.needs_userinfo({"email": "a@b.example"}, client)


def test_a_member_of_both_groups_is_an_operator_with_all_permissions() -> None:
    client = replace(CLIENT, read_only_group="support")
    for groups in (["support", "operators"], ["operators", "support"]):
        found = id_tokens.identity_of(CLAIMS | {"groups": groups}, client)
        assert (found.is_operator, found.is_read_only) == (True, False)


def test_the_time_of_authentication_is_optional() -> None:
    assert identity(auth_time=SECONDS).authenticated_at == NOW
    assert identity().authenticated_at is None


def test_userinfo_completes_claims_and_never_mixes_emails() -> None:
    assert id_tokens.needs_userinfo({"email": "a@b.example"}, CLIENT)
    assert not id_tokens.needs_userinfo({"email": "a@b.example", "groups": []}, CLIENT)
    info = {"sub": "s", "email": "b@b.example", "email_verified": True, "groups": ["g"], "name": "B"}
    own = id_tokens.with_userinfo({"sub": "s", "email": "a@b.example", "name": "A"}, info)
    assert own == {
        "sub": "s", "email": "a@b.example", "email_verified": None, "xms_edov": None, "groups": ["g"], "name": "A",
    }  # fmt: skip
    theirs = id_tokens.with_userinfo({"sub": "s", "xms_edov": True}, {"sub": "s", "email": "b@b.example"})
    assert id_tokens.identity_of(CLAIMS | theirs, CLIENT).email is None
