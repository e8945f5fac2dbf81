"""Data directories that run out of space, until the test frees some space."""

import contextlib
import os
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .harness import Server

LEFT_BYTES = 160 * 1024


class FileLimit:
    """Limits the size of the files of a process: writes fail with EFBIG."""

    def __init__(self, data: Path, left_bytes: int | None) -> None:
        self.data = data
        self._left_bytes = left_bytes

    def fill(self, server: Server) -> None:
        """Leave almost no space."""
        limit = 0
        if self._left_bytes is not None:
            limit = max(path.stat().st_size for path in self.data.iterdir()) + self._left_bytes
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def free(self, server: Server) -> None:
        """Make space available again."""
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


class SmallDisk:
    """A small file system that the test fills with an extra file."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._filler = data / "filler"

    def fill(self, server: Server) -> None:
        """Leave almost no space."""
        disk = os.statvfs(self.data)
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, disk.f_bavail * disk.f_bsize - LEFT_BYTES)

    def free(self, server: Server) -> None:
        """Make space available again."""
        self._filler.unlink()


Storage = FileLimit | SmallDisk


@contextlib.contextmanager
def small_storage(storage_kind: str, data: Path) -> Iterator[Storage]:
    """Create a data directory of one of STORAGE_KINDS."""
    data.mkdir()
    if storage_kind != "small disk":
        yield FileLimit(data, LEFT_BYTES if storage_kind == "file limit" else None)
        return
    _mount(data)
    try:
        yield SmallDisk(data)
    finally:
        subprocess.run(["umount", "--lazy", str(data)], check=True, timeout=10)


def _mount(at: Path) -> None:
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(at)]
    subprocess.run(command, check=True, timeout=10, capture_output=True)


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as at:
        try:
            _mount(Path(at))
            subprocess.run(["umount", at], check=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return False
    return True


STORAGE_KINDS = ["file limit", "no write at all", *(["small disk"] if _can_mount() else [])]
"""The kind `small disk` is available only with the privilege to mount file systems."""
