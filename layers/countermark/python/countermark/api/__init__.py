"""Ring 4: the HTTP API. The same routes serve the Lambda functions and the local server."""
