"""Receivers for web frameworks, one module each; a module imports its framework, this package none.

`fastapi` (and Starlette), `flask`, `django`; `asgi` and `wsgi` need nothing. All of them answer alike:

| request | answer |
|---|---|
| verified, and handled without an error | 2xx |
| signature absent or wrong, or signed too long ago | 401 |
| anything else that no sender of ours sends | 400 |
| another method than POST | 405 |
| a body of more than 1 MiB | 413 |
| the event is being handled at this moment (EventInProgress) | 409 |
| the handler raises | whatever the framework makes of it: the sender tries again |
"""
