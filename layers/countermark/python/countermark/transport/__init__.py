"""Ring 2: content by URL, fetched so that a caller cannot turn the service against its own network."""
