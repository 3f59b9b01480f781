"""Ring 4: the stores of the command line and the local server. They use SQLite and files in one directory."""
