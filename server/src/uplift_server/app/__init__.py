"""The application: wires all parts together."""

from uplift_server.app.application import Application

__all__ = ["Application"]
