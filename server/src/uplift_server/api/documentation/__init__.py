"""The documentation at `/docs`: the pages of docs/ and the API reference as HTML, with full-text search."""
