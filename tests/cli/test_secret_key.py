"""The encryption key: configured, or created once in a file next to the database."""

import base64
import os
from pathlib import Path

import pytest

from uplift_server.config import Config, ConfigError, check_database, load, publish_key, secret_key


def config_in(directory: Path, **environ: str) -> Config:
    return load({"UPLIFT_DATABASE_URL": f"sqlite:///{directory}/data/uplift.db", **environ})


def test_a_given_key_is_used_and_nothing_is_written(tmp_path: Path) -> None:
    text = base64.b64encode(b"k" * 32).decode()
    assert secret_key(config_in(tmp_path, UPLIFT_SECRET_KEY=text)) == text
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_created_once_and_readable_only_by_its_owner(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    first = secret_key(config)
    assert len(base64.b64decode(first)) == 32
    assert secret_key(config) == first
    publish_key(config)
    assert secret_key(config) == first
    assert config.secret_key_path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in config.secret_key_path.parent.iterdir()] == ["secret.key"]
    assert secret_key(config_in(tmp_path / "other")) != first


def test_no_new_key_is_created_for_an_encrypted_database(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    secret_key(config)
    config.database_path.write_bytes(b"SQLite format 3\0")
    publish_key(config)
    config.secret_key_path.unlink()
    with pytest.raises(ConfigError, match=r"secret\.key is missing, but .* exists; restore the key"):
        secret_key(config)
    assert not config.secret_key_path.exists()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe", b"c2hvcnQ=\n"])
def test_a_damaged_key_file_stops_the_start(tmp_path: Path, content: bytes) -> None:
    config = config_in(tmp_path)
    config.secret_key_path.parent.mkdir()
    config.secret_key_path.write_bytes(content)
    with pytest.raises(ConfigError, match="UPLIFT_SECRET_KEY"):
        secret_key(config)


def test_an_uncreatable_directory_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    with pytest.raises(ConfigError, match="write access to the directory, or set UPLIFT_SECRET_KEY"):
        secret_key(config_in(tmp_path))


def test_a_key_of_a_concurrent_process_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_in(tmp_path)
    theirs = base64.b64encode(b"t" * 32)
    link = os.link

    def link_late(draft: Path, path: Path) -> None:
        path.write_bytes(theirs)
        link(draft, path)

    monkeypatch.setattr(os, "link", link_late)
    assert secret_key(config) == theirs.decode()
    publish_key(config)
    assert [path.name for path in config.secret_key_path.parent.iterdir()] == ["secret.key"]


@pytest.mark.parametrize("content", [None, b""])
def test_a_key_without_its_database_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    config = config_in(tmp_path)
    secret_key(config)
    check_database(config)
    publish_key(config)
    if content is not None:
        config.database_path.write_bytes(content)
    with pytest.raises(ConfigError, match="--new-database"):
        check_database(config)
    check_database(config, new=True)


def test_a_new_database_is_not_created_over_another(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    secret_key(config)
    config.database_path.write_bytes(b"SQLite format 3\0")
    publish_key(config)
    check_database(config)
    with pytest.raises(ConfigError, match="--new-database"):
        check_database(config, new=True)


def test_a_failed_start_does_not_replace_a_restored_key(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    secret_key(config)  # The start fails before it creates the database.
    restored = base64.b64encode(b"r" * 32).decode()
    config.secret_key_path.write_text(restored)
    config.database_path.write_bytes(b"SQLite format 3\0")
    assert secret_key(config) == restored
    publish_key(config)
    assert secret_key(config) == restored
    assert sorted(path.name for path in config.secret_key_path.parent.iterdir()) == ["secret.key", "uplift.db"]
