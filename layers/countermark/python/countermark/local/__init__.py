"""Ring 4: the embedded store of the command line and the local server, with SQLite and files in one directory."""
