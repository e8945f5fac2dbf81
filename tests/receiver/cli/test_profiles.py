"""Server and key of a command: options, environment, profiles, and their errors."""

from pathlib import Path

import pytest

from uplift_webhooks.cli.kit.errors import CliError, ExitCode
from uplift_webhooks.cli.profiles import Asked, find_access

FILE = """
[default]
api_url = "https://default.example"
api_key = "sk_default"

[staging]
api_url = "https://staging.example/"
api_key = "sk_staging"
"""
ENVIRONMENT = {"UPLIFT_API_URL": "https://environment.example", "UPLIFT_API_KEY": "sk_environment"}


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "uplift/config.toml"
    file.parent.mkdir()
    file.write_text(FILE)
    file.chmod(0o600)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.mark.parametrize(
    ("asked", "environ", "found"),
    [
        (Asked(), {}, ("https://default.example", "sk_default")),
        (Asked(), ENVIRONMENT, ("https://environment.example", "sk_environment")),
        (Asked(), {"UPLIFT_PROFILE": "staging"}, ("https://staging.example", "sk_staging")),
        (Asked(), {"UPLIFT_PROFILE": "staging", **ENVIRONMENT}, ("https://environment.example", "sk_environment")),
        (Asked(profile="staging"), ENVIRONMENT, ("https://staging.example", "sk_staging")),
        (Asked(api_url="https://option.example"), ENVIRONMENT, ("https://option.example", "sk_environment")),
        (Asked("https://o.example", "sk_o", "staging"), ENVIRONMENT, ("https://o.example", "sk_o")),
        (
            Asked(api_url="https://staging.example"),
            {"UPLIFT_PROFILE": "staging"},
            ("https://staging.example", "sk_staging"),
        ),
    ],
)
def test_the_more_specific_source_takes_precedence(
    asked: Asked, environ: dict[str, str], found: tuple[str, str], home: dict[str, str]
) -> None:
    access = find_access(asked, {**home, **environ})
    assert (access.api_url, access.api_key, access.warning) == (*found, "")
    assert access.api_key not in repr(access)


def test_a_profiles_key_is_sent_only_to_its_own_server(home: dict[str, str]) -> None:
    with pytest.raises(CliError) as caught:
        find_access(Asked(api_url="https://other.example"), home)
    assert caught.value.code is ExitCode.USAGE
    assert "sk_default" not in caught.value.cause + caught.value.remedy
    with pytest.raises(CliError):
        find_access(Asked(), {**home, "UPLIFT_API_URL": "https://other.example"})


def test_a_file_that_other_users_can_read_causes_a_warning(home: dict[str, str]) -> None:
    file = Path(home["XDG_CONFIG_HOME"]) / "uplift/config.toml"
    for mode in (0o640, 0o604):
        file.chmod(mode)
        assert (
            find_access(Asked(), home).warning == f"other users can read the API key in {file}. Run: chmod 600 {file}"
        )
        assert find_access(Asked(), {**home, **ENVIRONMENT}).warning == ""


def test_missing_settings(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    with pytest.raises(CliError) as caught:
        find_access(Asked(), environ)
    assert (caught.value.code, caught.value.cause) == (ExitCode.USAGE, "the server's URL is not set")
    with pytest.raises(CliError) as caught:
        find_access(Asked(api_url="https://x.example"), environ)
    assert caught.value.code is ExitCode.NOT_ALLOWED
    assert find_access(Asked(api_url="https://x.example"), environ, keyless=True).api_key == ""
    with pytest.raises(CliError) as caught:
        find_access(Asked(profile="staging"), environ)
    assert caught.value.cause == "there is no profile 'staging'"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("[default", "is not valid TOML"),
        ("[default]\napi_kye = 'x'", "api_kye in the profile 'default'"),
        ("[default]\napi_key = 5", "api_key in the profile 'default'"),
        ("default = 5", "there is no profile 'default'"),
    ],
)
def test_invalid_profile_files(text: str, cause: str, home: dict[str, str]) -> None:
    (Path(home["XDG_CONFIG_HOME"]) / "uplift/config.toml").write_text(text)
    with pytest.raises(CliError) as caught:
        find_access(Asked(), home)
    assert cause in caught.value.cause
    assert caught.value.code is ExitCode.USAGE
    # Errors of the file do not matter if it is not needed.
    assert find_access(Asked(), {**home, **ENVIRONMENT}).api_key == "sk_environment"


def test_an_unknown_profile_lists_the_existing_ones(home: dict[str, str]) -> None:
    with pytest.raises(CliError) as caught:
        find_access(Asked(profile="prod"), home)
    assert caught.value.remedy == "use one of: default, staging"


def test_a_file_that_is_not_utf8(home: dict[str, str]) -> None:
    (Path(home["XDG_CONFIG_HOME"]) / "uplift/config.toml").write_bytes(b"\xff")
    with pytest.raises(CliError, match="the file is not UTF-8"):
        find_access(Asked(), home)


@pytest.mark.parametrize("end", ["/v1", "/v1/", "/", ""])
def test_a_version_at_the_end_of_the_url_is_removed(home: dict[str, str], end: str) -> None:
    environ = {**home, **ENVIRONMENT, "UPLIFT_API_URL": f"https://x.example/uplift{end}"}
    assert find_access(Asked(), environ).api_url == "https://x.example/uplift"


def test_the_origins_of_url_and_key_are_known(home: dict[str, str]) -> None:
    found = find_access(Asked(api_url="https://a.example"), {**home, **ENVIRONMENT})
    assert (found.url_origin, found.key_origin) == ("--api-url", "UPLIFT_API_KEY")
    found = find_access(Asked(profile="staging"), {**home, **ENVIRONMENT})
    assert (found.url_origin, found.key_origin) == (
        "api_url of the profile 'staging'",
        "api_key of the profile 'staging'",
    )
