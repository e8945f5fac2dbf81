"""Settings for servers with a faulty SQLite driver."""

from pathlib import Path

DRIVER = Path(__file__).parent / "faulty_driver"


def fault_settings(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return the file that names the fault, and the environment of a server that reads it."""
    fault = tmp_path / "fault"
    return fault, {"PYTHONPATH": str(DRIVER), "DRIVER_FAULT_FILE": str(fault)}
