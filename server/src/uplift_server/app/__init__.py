"""The application: the only place that wires the parts together."""

from uplift_server.app.application import Application

__all__ = ["Application"]
