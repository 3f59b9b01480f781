"""Ring 2: HTTP. Fetching content by URL is safe: a caller cannot make the service send requests to its own network."""
