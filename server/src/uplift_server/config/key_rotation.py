"""Rotation of the key that encrypts endpoint secrets.

The new key is stored on disk before it encrypts any value. After all values are encrypted with the new key, the new key
replaces the old key. After an interruption, both keys exist, each value is encrypted with one of them, and another
rotation finishes the work. The caller must hold the lock on the database.
"""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.secret_key import NAME, make_durable, new_key, read_key, storage_error, store_key
from uplift_server.config.settings import Config


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The old and the new key as base64, and their files."""

    old: str = field(repr=False)
    new: str = field(repr=False)
    path: Path | None
    """The old key's file, or None if the operator sets the key."""
    next_path: Path | None
    """The new key's file during the rotation.

    None if the operator sets the key, or if the keys are already equal.
    """

    def finish(self, now_ms: int) -> Path | None:
        """Replace the old key's file with the new key's file.

        Call this method after all values are encrypted with the new key. Return the file that keeps the old key for use
        with earlier copies of the database, or None if there is no file to replace. Raises ConfigError.
        """
        if self.path is None or self.next_path is None:
            return None
        try:
            kept = self._keep_old(now_ms)
            make_durable(self.path.parent)
            self.next_path.replace(self.path)
            make_durable(self.path.parent)
        except OSError as error:
            raise storage_error(f"be stored in {self.path}", error) from error
        return kept

    def _keep_old(self, now_ms: int) -> Path:
        """Create a second hard link to the old key's file, unless an earlier rotation has already created one.

        Return the path of the second link.
        """
        assert self.path is not None, "the operator stores the key"
        for earlier in self.path.parent.glob(f"{self.path.name}.before-*"):
            if earlier.samefile(self.path):
                return earlier
        timestamp = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
        kept = self.path.with_name(f"{self.path.name}.before-{timestamp}.{now_ms % 1000:03}Z")
        os.link(self.path, kept)
        return kept


def begin(config: Config, new_key_file: Path | None) -> KeyRotation:
    """Read the old key, and read or create the new key.

    If an earlier rotation is unfinished, the new key is the key of that rotation. Otherwise, the new key is the key in
    `new_key_file`. If `new_key_file` is None, generate the new key.

    Raises ConfigError if a key file is not accessible or not valid, if `new_key_file` does not contain the key of
    the unfinished rotation, or if `new_key_file` is None although the operator sets the key.
    """
    given = None if new_key_file is None else read_key(new_key_file)
    if config.secret_key is not None:
        if given is None:
            remedy = "create a key with `head -c 32 /dev/urandom | base64 > FILE`, and use --new-key-file FILE"
            raise ConfigError(ConfigProblem(NAME, "is set, so the server cannot generate the new key", remedy))
        return KeyRotation(config.secret_key, given, None, None)
    path, next_path = config.secret_key_path, config.next_secret_key_path
    old = read_key(path)
    if not next_path.exists():
        if given == old:
            return KeyRotation(old, old, path, None)
        try:
            store_key(next_path, given or new_key())
        except OSError as error:
            raise storage_error(f"be stored in {next_path}", error) from error
    new = read_key(next_path)
    if given not in (None, new):
        reason = f"has an unfinished rotation to the key in {next_path}, but {new_key_file} contains another key"
        raise ConfigError(ConfigProblem(NAME, reason, "finish the rotation: run the command without --new-key-file"))
    return KeyRotation(old, new, path, next_path)
