"""Settings: their sources, their valid values, and a report of all errors at once."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uplift_server.config import OTHER_TOOLS, SETTINGS, Config, ConfigError, describe, find_file, load

NAMES = [setting.name for setting in SETTINGS]
DAY = 86_400_000


def problems(environ: dict[str, str], file: Path | None = None) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(environ, file)
    return {problem.name: f"{problem.reason} / {problem.remedy}" for problem in caught.value.problems}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "uplift.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_values() -> None:
    config = load({})
    assert config.database_url == "sqlite:///uplift-data/uplift.db"
    assert config.database_path == Path("uplift-data/uplift.db")
    assert (config.host, config.port, config.public_url) == ("127.0.0.1", 8420, "http://127.0.0.1:8420")
    assert config.operator_key is None
    assert config.secret_key is None
    assert config.allow_private_networks is False
    seconds = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    assert config.retry_schedule_ms == tuple(each * 1000 for each in seconds)
    assert (config.attempt_timeout_ms, config.connect_timeout_ms, config.lease_ms) == (15_000, 5_000, 45_000)
    assert (config.max_in_flight, config.max_in_flight_per_endpoint) == (1000, 16)
    assert (config.breaker_failures, config.breaker_probe_max_ms) == (10, 300_000)
    assert config.source_ips == ("54.245.28.22",)
    assert (config.egress_address, config.egress_proxy, config.egress_ca_file) == (None, None, None)
    assert (config.smtp_url, config.mail_from, config.operator_email, config.sends_mail) == (None, None, None, False)
    assert config.retention_ms == 30 * DAY
    assert config.log_format == "json"
    assert load({}, terminal=True).log_format == "console"


def test_settings_and_configuration_attributes_match() -> None:
    assert [setting.attribute for setting in SETTINGS] == [
        field.name for field in fields(Config) if field.name != "given"
    ]
    assert all(re.fullmatch("UPLIFT_[A-Z_]+", name) for name in NAMES)
    for setting in SETTINGS:
        assert setting.attribute.removesuffix("_ms") == setting.key
        assert setting.help[0].islower()
        assert not setting.help.endswith(".")


def test_the_environment_overrides_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    file = toml(
        tmp_path, 'port = 9000\nhost = "localhost"\nretry_schedule = ["1s", "2m"]\nallow_private_networks = true'
    )
    config = load({"UPLIFT_PORT": "9001"}, file)
    assert (config.port, config.host) == (9001, "localhost")
    assert config.retry_schedule_ms == (1000, 120_000)
    assert config.allow_private_networks is True
    assert config.public_url == "http://localhost:9001"
    sources = {each.setting.key: each.source for each in describe(config)}
    assert sources["port"] == "environment"
    assert sources["host"] == str(file)
    assert sources["retention"] == "default"


@pytest.mark.parametrize(
    ("environ", "attribute", "value"),
    [
        ({"UPLIFT_RETRY_SCHEDULE": ""}, "retry_schedule_ms", ()),
        ({"UPLIFT_RETRY_SCHEDULE": "250ms, 1h30m"}, "retry_schedule_ms", (250, 5_400_000)),
        ({"UPLIFT_SOURCE_IPS": ""}, "source_ips", ()),
        (
            {"UPLIFT_SOURCE_IPS": "192.0.2.1@2026-12-01T01:00:00+01:00"},
            "source_ips",
            ("192.0.2.1@2026-12-01T00:00:00.000Z",),
        ),
        ({"UPLIFT_SOURCE_IPS": "192.0.2.1, 2001:DB8::0001"}, "source_ips", ("192.0.2.1", "2001:db8::1")),
        ({"UPLIFT_EGRESS_PROXY": ""}, "egress_proxy", None),
        ({"UPLIFT_EGRESS_PROXY": "http://user:word@proxy:3128"}, "egress_proxy", "http://user:word@proxy:3128"),
        ({"UPLIFT_SMTP_URL": ""}, "sends_mail", False),
        ({"UPLIFT_SMTP_URL": "smtp://u:p%40@localhost", "UPLIFT_MAIL_FROM": "a@b.example"}, "sends_mail", True),
        ({"UPLIFT_MAIL_FROM": "Uplift <a@b.example>"}, "mail_from", "Uplift <a@b.example>"),
        ({"UPLIFT_OPERATOR_EMAIL": "a@b.example"}, "operator_email", "a@b.example"),
        ({"UPLIFT_RETENTION": "0"}, "retention_ms", 0),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "2s"}, "connect_timeout_ms", 2_000),
        ({}, "endpoint_timeout_max_ms", 30_000),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "2s"}, "lease_ms", 45_000),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "2m"}, "lease_ms", 135_000),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "2s", "UPLIFT_ENDPOINT_TIMEOUT_MAX": "4s"}, "lease_ms", 19_000),
        ({"UPLIFT_LEASE": "20s"}, "endpoint_timeout_max_ms", 15_000),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "100ms", "UPLIFT_LEASE": "5100ms"}, "endpoint_timeout_max_ms", 1_000),
        ({"UPLIFT_ATTEMPT_TIMEOUT": "2s", "UPLIFT_LEASE": "7s"}, "lease_ms", 7_000),
        ({"UPLIFT_HOST": "0.0.0.0"}, "public_url", "http://127.0.0.1:8420"),
        ({"UPLIFT_HOST": "::"}, "public_url", "http://[::1]:8420"),
        ({"UPLIFT_PUBLIC_URL": "https://hooks.example.com/"}, "public_url", "https://hooks.example.com"),
        ({"UPLIFT_ALLOW_PRIVATE_NETWORKS": "TRUE"}, "allow_private_networks", True),
        ({"UPLIFT_DATABASE_URL": "sqlite:////var/lib/uplift.db"}, "database_path", Path("/var/lib/uplift.db")),
    ],
)
def test_valid_values(environ: dict[str, str], attribute: str, value: object) -> None:
    assert getattr(load(environ), attribute) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("UPLIFT_DATABASE_URL", "mysql://localhost/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost"),
        ("UPLIFT_DATABASE_URL", "postgresql://u:p@localhost:port/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost:5432:1/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://a:5432,b:99999/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?search_path=x"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift#x"),
        ("UPLIFT_DATABASE_URL", "postgresql://u:p@w/x@localhost/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://u:p/w@localhost/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://u@a..b/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?port=x"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?target_session_attrs=x"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?target_session_attrs=standby"),
        ("UPLIFT_DATABASE_URL", "postgresql://one,[2001:db8::x]/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://one,[::1]two/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://one,[::1]:99999/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://u:p[w@localhost/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql://one,,two/uplift"),
        ("UPLIFT_DATABASE_URL", "postgresql:///uplift?host=one,,two"),
        ("UPLIFT_DATABASE_URL", "postgresql:///uplift?host=one,two&port=,2"),
        ("UPLIFT_DATABASE_URL", "postgresql:///uplift?host=::1,two"),
        ("UPLIFT_DATABASE_URL", "postgresql://one,two/uplift?port=5433"),
        ("UPLIFT_DATABASE_URL", "postgresql://one/uplift?host=two"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?sslmode="),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?sslmode=on"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?sslmode=verify-full&sslrootcert=/nonexistent"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?sslmode=require&sslrootcert=system"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?sslmode=verify-full&sslcert=system"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?pooler=session"),
        ("UPLIFT_DATABASE_URL", "postgresql://localhost/uplift?pooler=session&pooler=transaction"),
        ("UPLIFT_DATABASE_URL", "sqlite:///"),
        ("UPLIFT_DATABASE_URL", "sqlite:///data/"),
        ("UPLIFT_DATABASE_URL", "sqlite:///data/x.db?mode=ro"),
        ("UPLIFT_DATABASE_URL", ""),
        ("UPLIFT_DATABASE_DIRECT_URL", "sqlite:///data/x.db"),
        ("UPLIFT_DATABASE_DIRECT_URL", "postgresql://localhost/uplift?pooler=transaction"),
        ("UPLIFT_NATS_URL", "http://localhost:4222"),
        ("UPLIFT_NATS_URL", "nats://localhost/path"),
        ("UPLIFT_NATS_URL", "nats://one,,nats://two"),
        ("UPLIFT_NATS_URL", "nats://one,tls://two"),
        ("UPLIFT_NATS_URL", "nats://token@one"),
        ("UPLIFT_NATS_URL", "nats://one:99999"),
        ("UPLIFT_NATS_REPLICAS", "2"),
        ("UPLIFT_NATS_CREDENTIALS_FILE", "/no/such/file.creds"),
        ("UPLIFT_HOST", "a host"),
        ("UPLIFT_HOST", "fe80::1%eth0"),
        ("UPLIFT_HOST", "a..b"),
        ("UPLIFT_PORT", "65536"),
        ("UPLIFT_PORT", "-1"),
        ("UPLIFT_PORT", "٨٤٢٠"),
        ("UPLIFT_PUBLIC_URL", "hooks.example.com"),
        ("UPLIFT_PUBLIC_URL", "https://user@hooks.example.com"),
        ("UPLIFT_PUBLIC_URL", "https://hooks.example.com?a"),
        ("UPLIFT_PUBLIC_URL", "https://[::1"),
        ("UPLIFT_OPERATOR_KEY", "sk_0123456789abcdef"),
        ("UPLIFT_OPERATOR_KEY", "op_short"),
        ("UPLIFT_OPERATOR_KEY", "op_0123456789\tabcdef"),
        ("UPLIFT_SECRET_KEY", "not base64!"),
        ("UPLIFT_SECRET_KEY", "c2hvcnQ="),
        ("UPLIFT_ALLOW_PRIVATE_NETWORKS", "maybe"),
        ("UPLIFT_RETRY_SCHEDULE", "5s,,5m"),
        ("UPLIFT_RETRY_SCHEDULE", "31d"),
        ("UPLIFT_RETRY_SCHEDULE", ",".join(["1s"] * 101)),
        ("UPLIFT_ATTEMPT_TIMEOUT", "15"),
        ("UPLIFT_ATTEMPT_TIMEOUT", "11m"),
        ("UPLIFT_MAX_IN_FLIGHT", "0"),
        ("UPLIFT_MAX_IN_FLIGHT_PER_ENDPOINT", "257"),
        ("UPLIFT_BREAKER_FAILURES", "ten"),
        ("UPLIFT_SMTP_URL", "mail.example.com:587"),
        ("UPLIFT_SMTP_URL", "smtp://user:secr#et@mail.example.com"),
        ("UPLIFT_MAIL_FROM", "Uplift"),
        ("UPLIFT_OPERATOR_EMAIL", "Uplift <a@b.example>"),
        ("UPLIFT_SOURCE_IPS", "54.245.28.22/32"),
        ("UPLIFT_SOURCE_IPS", "54.245.28.22,"),
        ("UPLIFT_SOURCE_IPS", "54.245.28.22@tomorrow"),
        ("UPLIFT_SOURCE_IPS", "54.245.28.22@"),
        ("UPLIFT_SOURCE_IPS", "fe80::1%eth0"),
        ("UPLIFT_EGRESS_ADDRESS", "localhost"),
        ("UPLIFT_EGRESS_ADDRESS", "0.0.0.0"),
        ("UPLIFT_EGRESS_ADDRESS", "192.0.2.1,ff02::1"),
        ("UPLIFT_EGRESS_ADDRESS", "192.0.2.1,192.0.2.2"),
        ("UPLIFT_EGRESS_ADDRESS", "192.0.2.1,2001:db8::1,2001:db8::2"),
        ("UPLIFT_EGRESS_PROXY", "socks5://proxy:1080"),
        ("UPLIFT_EGRESS_CA_FILE", "/no/such/file.pem"),
        ("UPLIFT_RETENTION", "30s"),
        ("UPLIFT_DASHBOARD_FRAME_ANCESTORS", "app.example.com"),
        ("UPLIFT_DASHBOARD_FRAME_ANCESTORS", "https://app.example.com; script-src *"),
        ("UPLIFT_DASHBOARD_FRAME_ANCESTORS", "*"),
        ("UPLIFT_BRAND_NAME", "x" * 61),
        ("UPLIFT_BRAND_NAME", "two\nlines"),
        ("UPLIFT_BRAND_LOGO_FILE", "/no/such/logo.svg"),
        ("UPLIFT_BRAND_LOGO_FILE", __file__),
        ("UPLIFT_BRAND_COLORS", "blue"),
        ("UPLIFT_BRAND_COLORS", "accent=#0b5cad accent=#0b5cad"),
        ("UPLIFT_BRAND_COLORS", "accent=#6cb2ff"),
        ("UPLIFT_BRAND_COLORS", "accent-dark=#0b5cad"),
        ("UPLIFT_OIDC_ISSUER", "login.example.com"),
        ("UPLIFT_OIDC_ISSUER", "https://login.example.com/?tenant=1"),
        ("UPLIFT_OIDC_CLIENT_ID", " uplift"),
        ("UPLIFT_OIDC_OPERATOR_GROUP", "operators "),
        ("UPLIFT_OIDC_READ_ONLY_GROUP", " support"),
        ("UPLIFT_TRUSTED_PROXIES", "proxy.example.com"),
        ("UPLIFT_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("UPLIFT_LOG_FORMAT", "xml"),
    ],
)
def test_an_invalid_value_has_a_fix_and_hides_secrets(name: str, value: str) -> None:
    found = problems({name: value})
    assert list(found) == [name]
    if value and ("KEY" in name or "SMTP" in name):
        assert value not in found[name]


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    file = toml(tmp_path, 'lease = "x"\nprot = 1\nretention = 1.5\n[table]\n')
    found = problems({"UPLIFT_PORT": "x", "UPLIFT_HOTS": "x", "UPLIFT_LOG_FORMAT": "x"}, file)
    assert len(found) == 7
    assert found["UPLIFT_HOTS"].endswith("did you mean UPLIFT_HOST? Correct or remove the setting")
    assert found[f"`prot` in {file}"].endswith("did you mean port? Correct or remove the setting")
    assert f"UPLIFT_LEASE (in {file})" in found
    assert f"UPLIFT_RETENTION (in {file})" in found


def test_contradictory_values_are_rejected() -> None:
    assert set(problems({"UPLIFT_CONNECT_TIMEOUT": "16s"})) == {"UPLIFT_CONNECT_TIMEOUT"}
    assert set(problems({"UPLIFT_LEASE": "19999ms"})) == {"UPLIFT_LEASE"}
    assert set(problems({"UPLIFT_LEASE": "34s", "UPLIFT_ENDPOINT_TIMEOUT_MAX": "30s"})) == {
        "UPLIFT_ENDPOINT_TIMEOUT_MAX"
    }
    assert set(problems({"UPLIFT_NATS_URL": "nats://localhost"})) == {"UPLIFT_NATS_URL"}
    assert set(problems({"UPLIFT_NATS_CREDENTIALS_FILE": __file__})) == {"UPLIFT_NATS_CREDENTIALS_FILE"}
    assert set(problems({"UPLIFT_WARN_AFTER": "5d"})) == {"UPLIFT_DISABLE_AFTER"}
    assert set(problems({"UPLIFT_DISABLE_AFTER": "3d"})) == {"UPLIFT_DISABLE_AFTER"}
    groups = ["UPLIFT_OIDC_OPERATOR_GROUP", "UPLIFT_OIDC_READ_ONLY_GROUP"]
    names = ["UPLIFT_OIDC_CLIENT_ID", "UPLIFT_OIDC_CLIENT_SECRET", *groups]
    assert set(problems(dict.fromkeys(names, "x"))) == set(names)
    assert set(problems({"UPLIFT_OIDC_ISSUER": "https://login.example.com"})) == set(names[:2])
    issuer = "https://login.example.com/"
    config = load({"UPLIFT_OIDC_ISSUER": issuer, **dict.fromkeys(names[:2], "a secret")})
    assert (config.oidc_issuer, "oidc_client_secret" in repr(config)) == (issuer, False)
    client = {"UPLIFT_OIDC_ISSUER": issuer, **dict.fromkeys(names[:2], "x")}
    assert set(problems({**client, **dict.fromkeys(groups, "support")})) == {"UPLIFT_OIDC_READ_ONLY_GROUP"}
    assert load({**client, groups[0]: "", groups[1]: "support"}).oidc_read_only_group == "support"
    assert load({"UPLIFT_WARN_AFTER": "1s", "UPLIFT_DISABLE_AFTER": "2s"}).disable_after_ms == 2_000
    assert load({"UPLIFT_LEASE": "20s", "UPLIFT_CONNECT_TIMEOUT": "15s"}).lease_ms == 20_000


def test_variables_of_the_receiver_tools_are_ignored() -> None:
    assert load(dict.fromkeys(OTHER_TOOLS, "x") | {"PATH": "/bin", "UPLIFTX": "1"}) == load({})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("192.0.2.1", ("192.0.2.1",)),
        ("2001:DB8::0:1", ("2001:db8::1",)),
        ("192.0.2.1, 2001:db8::1", ("192.0.2.1", "2001:db8::1")),
    ],
)
def test_requests_leave_from_one_address_of_each_version(text: str, found: tuple[str, ...]) -> None:
    assert load({"UPLIFT_EGRESS_ADDRESS": text}).egress_address == found


def test_secrets_are_masked_in_a_configuration() -> None:
    environ = {
        "UPLIFT_OPERATOR_KEY": "op_very_secret_operator",
        "UPLIFT_SECRET_KEY": "c2VhbHMgc2VjcmV0cyBhdCByZXN0LCAzMiBieXRlcyE=",
        "UPLIFT_EGRESS_PROXY": "http://user:word@proxy:3128",
    }
    config = load(environ)
    shown = repr(config) + repr([(each.setting.name, each.value, each.source) for each in describe(config)])
    for value in environ.values():
        assert value not in shown
    assert {each.value for each in describe(config) if each.setting.name in environ} == {"••••••••"}


def test_derived_defaults_are_described() -> None:
    shown = {
        each.setting.key: each.value for each in describe(load({"UPLIFT_ATTEMPT_TIMEOUT": "4s", "UPLIFT_LEASE": "14s"}))
    }
    assert shown["connect_timeout"] == "4s"
    assert shown["endpoint_timeout_max"] == "9s"
    assert shown["public_url"] == "http://127.0.0.1:8420"
    assert shown["operator_key"].startswith("none (generated by")
    assert shown["egress_address"] == "none"


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"port = 1\nport = 2", b"a = " + b"[" * 5000])
def test_an_unreadable_file_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "uplift.toml"
    path.write_bytes(content)
    assert list(problems({}, path)) == [str(path)]
    assert list(problems({}, tmp_path / "missing.toml")) == [str(tmp_path / "missing.toml")]


def test_the_file_of_the_system_is_used_if_the_directory_has_none(tmp_path: Path) -> None:
    system = tmp_path / "system.toml"
    assert find_file(tmp_path, system) is None
    system.write_text("")
    assert find_file(tmp_path, system) == system
    path = toml(tmp_path, "")
    assert find_file(tmp_path, system) == path


def test_a_file_in_a_directory_without_access_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    file = tmp_path / "uplift.toml"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", denied)
        patch.setattr(Path, "read_text", denied)
        assert find_file(tmp_path) == file
        assert "cannot be read: Permission denied" in problems({}, file)[str(file)]


def test_a_secret_can_be_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("op_" + "a" * 32 + "\r\n")
    environ = {"UPLIFT_OPERATOR_KEY_FILE": str(secret)}
    config = load(environ)
    assert config.operator_key == "op_" + "a" * 32
    described = next(each for each in describe(config) if each.setting.name == "UPLIFT_OPERATOR_KEY")
    assert (described.value, described.source) == ("•" * 8, "the file of UPLIFT_OPERATOR_KEY_FILE")
    secret.write_text("sqlite:///other.db")
    assert load({"UPLIFT_DATABASE_URL_FILE": str(secret)}).database_path == Path("other.db")


def test_a_wrong_file_of_a_secret_is_reported_without_its_content(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    name = "UPLIFT_OPERATOR_KEY_FILE"
    assert "cannot be read: No such file" in problems({name: str(secret)})[name]
    secret.write_bytes(b"op_secret\xff")
    assert problems({name: str(secret)})[name].endswith(
        "not UTF-8 / write the value into the file as text, or correct the path"
    )
    secret.write_text("op secret " + "x" * 5000)
    assert (
        "secret" not in problems({name: str(secret)})["UPLIFT_OPERATOR_KEY (in the file of UPLIFT_OPERATOR_KEY_FILE)"]
    )
    secret.write_text("\r\n")
    empty = f"is {secret}, which is empty / write the value into the file, or correct the path"
    assert problems({name: str(secret)})[name] == empty
    assert problems({name: ""})[name] == "is empty / set the path of a file, or remove the setting"
    both = {name: str(secret), "UPLIFT_OPERATOR_KEY": "op_" + "a" * 32}
    assert problems(both)[name] == "is set in addition to UPLIFT_OPERATOR_KEY / remove one of these settings"
    assert "UPLIFT_OPERATOR_KEY_FILE" in problems({"UPLIFT_OPERATOR_KEY_FIL": "x"})["UPLIFT_OPERATOR_KEY_FIL"]
    assert "not a setting" in problems({"UPLIFT_PORT_FILE": "x"})["UPLIFT_PORT_FILE"]


def load_or_error(environ: dict[str, str], file: Path | None = None) -> Config | ConfigError:
    """Return the configuration, or its error. Any other exception fails the test."""
    try:
        return load(environ, file)
    except ConfigError as error:
        return error


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=60), max_size=8))
def test_any_environment_is_a_configuration_or_a_config_error(environ: dict[str, str]) -> None:
    result = load_or_error(environ)
    if isinstance(result, ConfigError):
        assert all(problem.name and problem.reason and problem.remedy for problem in result.problems)
        assert {problem.name for problem in result.problems} <= set(NAMES)
    else:
        assert result.connect_timeout_ms <= result.attempt_timeout_ms < result.lease_ms
        assert result.endpoint_timeout_max_ms < result.lease_ms
        assert len(describe(result)) == len(SETTINGS)


@given(st.text(alphabet="0123456789smhd,. -+_e\x00é", max_size=12), st.sampled_from(NAMES))
def test_any_number_is_a_configuration_or_a_config_error(text: str, name: str) -> None:
    result = load_or_error({name: text})
    assert isinstance(result, Config) or [problem.name for problem in result.problems] == [name]


@given(st.binary(max_size=80))
def test_any_file_is_a_configuration_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.toml"
    path.write_bytes(content)
    result = load_or_error({}, path)
    assert isinstance(result, Config) or result.problems


def test_mail_needs_a_sender() -> None:
    found = problems({"UPLIFT_SMTP_URL": "smtp://u:geheim@localhost"})
    assert list(found) == ["UPLIFT_MAIL_FROM"]
    assert "UPLIFT_SMTP_URL" in found["UPLIFT_MAIL_FROM"]
    assert "geheim" not in found["UPLIFT_MAIL_FROM"]


def test_the_password_of_the_mail_server_is_hidden() -> None:
    config = load({"UPLIFT_SMTP_URL": "smtp://u:geheim@localhost", "UPLIFT_MAIL_FROM": "a@b.example"})
    assert "geheim" not in repr(config)
    assert not any("geheim" in each.value for each in describe(config))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://u:pass@db:5432/uplift?sslmode=require",
            "postgresql://u:••••••••@db:5432/uplift?sslmode=require",
        ),
        ("postgresql://db/uplift?user=u&password=pass", "postgresql://db/uplift?user=u&password=••••••••"),
        ("postgres://u@/uplift?host=/run/postgresql", "postgres://u@/uplift?host=/run/postgresql"),
        ("postgresql://a:5432,[::1]:5433/uplift", "postgresql://a:5432,[::1]:5433/uplift"),
    ],
)
def test_the_password_of_a_database_is_hidden(url: str, shown: str) -> None:
    config = load({"UPLIFT_DATABASE_URL": url})
    assert config.database_url == url
    assert (config.on_postgresql, config.shown_database) == (True, shown)
    assert {each.value for each in describe(config) if each.setting.name == "UPLIFT_DATABASE_URL"} == {shown}
    assert "pass@" not in repr(config)
    assert "=pass" not in repr(config)


def test_the_passwords_of_nats_are_hidden(tmp_path: Path) -> None:
    url = "nats://a:pass@one:4222,nats://b:word@two:4222,nats://three"
    secret = tmp_path / "nats-url"
    secret.write_text(f"{url}\n")
    config = load({"UPLIFT_DATABASE_URL": "postgresql://db/uplift", "UPLIFT_NATS_URL_FILE": str(secret)})
    assert config.nats_url == url
    (shown,) = [each.value for each in describe(config) if each.setting.name == "UPLIFT_NATS_URL"]
    assert shown == "nats://a:••••••••@one:4222,nats://b:••••••••@two:4222,nats://three"
    assert "pass@" not in repr(config)


@pytest.mark.parametrize(
    "url", ["postgresql://u:se/cret@db/x", "postgresql://u:se#cret@db/x", "postgresql://u:s@e@db/x"]
)
def test_a_password_with_unescaped_characters_is_hidden(url: str) -> None:
    [error] = problems({"UPLIFT_DATABASE_URL": url}).values()
    assert "se" not in error.partition(";")[0].split()
    assert "'s" not in error
    assert "%40" in error or "%-codes" in error


def test_a_color_with_low_contrast_is_rejected_with_the_measured_contrast() -> None:
    assert (
        "contrast with the page background is 2.0"
        in problems({"UPLIFT_BRAND_COLORS": "accent=#6cb2ff"})["UPLIFT_BRAND_COLORS"]
    )
    assert load({"UPLIFT_BRAND_COLORS": "accent=#0B5CAD accent-dark=#6cb2ff"}).branding.colors == {
        "accent": "#0b5cad",
        "accent-dark": "#6cb2ff",
    }
    assert load({}).branding.name == "Uplift Webhooks"


def test_several_sites_can_embed_the_dashboard() -> None:
    found = load({"UPLIFT_DASHBOARD_FRAME_ANCESTORS": " https://a.example  https://*.b.example:8443 "})
    assert found.dashboard_frame_ancestors == "https://a.example https://*.b.example:8443"
    assert load({}).dashboard_frame_ancestors is None


@pytest.mark.parametrize(
    "name", ["UPLIFT_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
)
def test_traces_need_a_collector(name: str) -> None:
    assert load({name: "http://127.0.0.1:4318"}).traces_by == name
    assert load({name: ""}).traces_by is None
    assert load({"OTEL_TRACES_SAMPLER": "always_on"}).traces_by is None
