"""Rules for HTTP requests: URLs, addresses, headers, and the result of an exchange."""
