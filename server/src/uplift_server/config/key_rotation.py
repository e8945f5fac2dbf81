"""Replacing the key that seals endpoint secrets.

The new key is on the disk before anything is sealed with it, and takes the old one's place only after everything is. So
whoever is stopped on the way finds both, each sealed value opens with one of the two, and doing it all again finishes.
The caller holds the database's lock.
"""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from uplift_server.config.problems import ConfigError, ConfigProblem
from uplift_server.config.secret_key import NAME, cannot, keep_key, make_durable, new_key, read_key
from uplift_server.config.settings import Config


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """The old key and the new one, as base64."""

    old: str = field(repr=False)
    new: str = field(repr=False)
    path: Path | None
    """Where the key is kept; None: the operator sets it."""
    next_path: Path | None
    """Where the new one waits to take the old one's place; None: it is not ours to put there, or is there already."""

    def finish(self, now_ms: int) -> Path | None:
        """Put the new key into its place once everything is sealed with it; where the old one is kept.

        Copies of the database made before still need the old one. Raises ConfigError.
        """
        if self.path is None or self.next_path is None:
            return None
        try:
            kept = self._keep_old(now_ms)
            make_durable(self.path.parent)
            self.next_path.replace(self.path)
            make_durable(self.path.parent)
        except OSError as error:
            raise cannot(f"be put into {self.path}", error) from error
        return kept

    def _keep_old(self, now_ms: int) -> Path:
        """Give the old key's file a second name, unless an earlier try has done so."""
        assert self.path is not None, "whose key is not ours to keep, keeps it"
        for earlier in self.path.parent.glob(f"{self.path.name}.before-*"):
            if earlier.samefile(self.path):
                return earlier
        instant = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%S")
        kept = self.path.with_name(f"{self.path.name}.before-{instant}.{now_ms % 1000:03}Z")
        os.link(self.path, kept)
        return kept


def begin(config: Config, new_key_file: Path | None) -> KeyRotation:
    """Find the old key and the new one, and have the new one on the disk. Raises ConfigError.

    The new one is that of a rotation which was begun and not finished; else that in the operator's file; else one we
    make, where the key is ours to keep.
    """
    given = None if new_key_file is None else read_key(new_key_file)
    if config.secret_key is not None:
        if given is None:
            remedy = "make one with `head -c 32 /dev/urandom | base64 > FILE`, and give --new-key-file FILE"
            raise ConfigError(ConfigProblem(NAME, "is set by you, so the new key has to come from you, too", remedy))
        return KeyRotation(config.secret_key, given, None, None)
    path, next_path = config.secret_key_path, config.next_secret_key_path
    old = read_key(path)
    if not next_path.exists():
        if given == old:
            return KeyRotation(old, old, path, None)
        try:
            keep_key(next_path, given or new_key())
        except OSError as error:
            raise cannot(f"be kept in {next_path}", error) from error
    new = read_key(next_path)
    if given not in (None, new):
        reason = f"is being replaced by the key in {next_path}, and {new_key_file} has another"
        raise ConfigError(ConfigProblem(NAME, reason, "finish that first: run this without --new-key-file"))
    return KeyRotation(old, new, path, next_path)
