"""The application: builds and connects all parts of the server."""

from uplift_server.app.application import Application

__all__ = ["Application"]
