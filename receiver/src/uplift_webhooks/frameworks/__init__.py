"""Receivers for web frameworks, one module each. Only that module imports the framework.

`fastapi` (and Starlette), `flask`, `django`; `asgi` and `wsgi` need no package. All of them send the same responses:

| request | response |
|---|---|
| verified and handled | 2xx |
| missing, wrong or expired signature | 401 |
| other invalid requests | 400 |
| another method than POST | 405 |
| a body of more than 1 MiB | 413 |
| the event is being handled (EventInProgress) | 409 |
| the handler raises | the framework's error response; the sender retries |
"""
