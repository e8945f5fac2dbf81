"""The documentation that the server serves at `/docs`: the pages of docs/ and the API reference, as HTML."""
