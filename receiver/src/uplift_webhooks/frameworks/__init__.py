"""Adapters for web frameworks, one module each: `fastapi`, `flask`, `django`, `asgi` (also Starlette) and `wsgi`.

Each module imports only its own framework. All adapters send the same responses:

| request | response |
|---|---|
| verified and handled | 2xx |
| missing, wrong or expired signature | 401 |
| other invalid requests | 400 |
| method other than POST | 405 |
| body larger than 1 MiB | 413 |
| another handler is processing the event (EventInProgress) | 409 |
| the handler raises an error | the framework's error response; the sender retries |
"""
