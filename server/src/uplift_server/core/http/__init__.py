"""HTTP rules: URLs, addresses, headers, and the result of an exchange."""
