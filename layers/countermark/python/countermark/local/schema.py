"""The tables of the embedded database, as a list of migrations.

Never edit a released migration. Add a new migration at the end for each change. A database gets its missing migrations
when it is opened.
"""

APPLICATION_ID = 0x434D524B
"""The id that marks a SQLite file as countermark's: "CMRK". Source: SQLite, PRAGMA application_id."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # With AUTOINCREMENT, the id of a deleted bank is never assigned again. So a new bank cannot get the contents of
        # a deleted bank.
        """CREATE TABLE banks (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            ratio REAL NOT NULL,
            distance_limits TEXT NOT NULL
        )""",
        # bank_id is not a foreign key, because the contents of a deleted bank stay until they are purged.
        """CREATE TABLE contents (
            id INTEGER PRIMARY KEY,
            bank_id INTEGER NOT NULL,
            disable_until_ts INTEGER NOT NULL,
            created_at_s INTEGER NOT NULL,
            signals TEXT NOT NULL,
            note TEXT NOT NULL,
            original_media_uri TEXT,
            metadata TEXT,
            provenance TEXT,
            source_key TEXT
        )""",
        "CREATE INDEX contents_by_bank ON contents (bank_id, id)",
        """CREATE UNIQUE INDEX contents_by_source ON contents (bank_id, source_key)
            WHERE source_key IS NOT NULL""",
        "CREATE TABLE next_content_id (id INTEGER NOT NULL)",
        "INSERT INTO next_content_id VALUES (1)",
        # One row per bank or content. The row moves to the end when the bank or content changes. Only one writer writes
        # at a time, so the order of `place` is the order in which changes became visible. So a reader misses no change.
        """CREATE TABLE changes (
            place INTEGER PRIMARY KEY AUTOINCREMENT,
            is_bank INTEGER NOT NULL,
            id INTEGER NOT NULL,
            UNIQUE (id, is_bank)
        )""",
        """CREATE TABLE signal_type_ratios (
            name TEXT PRIMARY KEY,
            ratio REAL NOT NULL
        ) WITHOUT ROWID""",
        # The row of a deleted collaboration stays while the collaboration has records, so that no record is orphaned.
        """CREATE TABLE collaborations (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            is_deleted INTEGER NOT NULL DEFAULT 0,
            configuration TEXT NOT NULL,
            fetch_state TEXT,
            lease_holder TEXT,
            lease_expires_at_s INTEGER
        )""",
        # Keys are stored as bytes, because the keys of exchanges are texts that can contain lone surrogates.
        """CREATE TABLE records (
            id INTEGER PRIMARY KEY,
            collaboration_id INTEGER NOT NULL REFERENCES collaborations (id),
            key BLOB NOT NULL,
            generation INTEGER NOT NULL,
            content_id INTEGER,
            is_withheld INTEGER NOT NULL DEFAULT 0,
            data TEXT NOT NULL,
            UNIQUE (collaboration_id, key)
        )""",
        "CREATE INDEX records_by_generation ON records (collaboration_id, generation, id)",
        """CREATE TABLE events (
            place INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            body TEXT NOT NULL
        )""",
        """CREATE TABLE done_events (
            id TEXT PRIMARY KEY,
            forget_at_s INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX done_events_by_time ON done_events (forget_at_s)",
        """CREATE TABLE api_keys (
            digest TEXT PRIMARY KEY,
            name TEXT NOT NULL,
            roles TEXT NOT NULL,
            created_at_s INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX api_keys_by_name ON api_keys (name)",
    ),
    (
        "CREATE TABLE last_opinion (place INTEGER NOT NULL)",
        "INSERT INTO last_opinion VALUES (0)",
        # Subjects are stored as bytes, because they contain keys of records.
        """CREATE TABLE opinion_turns (
            subject BLOB PRIMARY KEY,
            told TEXT NOT NULL,
            holder TEXT,
            lease_expires_at_s INTEGER NOT NULL,
            forget_at_s INTEGER NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX opinion_turns_by_time ON opinion_turns (forget_at_s)",
    ),
    (
        # The process that holds a lease, and the start of the lease, as `holds.LeaseHold` describes. NULL means that an
        # older version of countermark wrote the lease.
        "ALTER TABLE collaborations ADD COLUMN lease_hold TEXT",
        "ALTER TABLE opinion_turns ADD COLUMN hold TEXT",
    ),
    (
        # The id of this store. An index that was built from another store is not used.
        "CREATE TABLE store (id TEXT NOT NULL)",
        "INSERT INTO store VALUES (lower(hex(randomblob(16))))",
        # The marks of builds. An older copy of this file lacks the later marks.
        "CREATE TABLE builds (place INTEGER PRIMARY KEY AUTOINCREMENT, mark TEXT NOT NULL UNIQUE)",
    ),
    (
        # Batches of contents by the caller's key. A repeated batch gets the content ids of the first call. `key` is the
        # SHA-256 of the caller's key.
        """CREATE TABLE batches (
            bank_id INTEGER NOT NULL,
            key BLOB NOT NULL,
            digest TEXT NOT NULL,
            first_id INTEGER NOT NULL,
            forget_at_s INTEGER NOT NULL,
            PRIMARY KEY (bank_id, key)
        ) WITHOUT ROWID""",
        "CREATE INDEX batches_by_time ON batches (forget_at_s)",
    ),
    (
        # Deleted banks that can still have contents. Older versions had no such table, so it is filled here once.
        "CREATE TABLE deleted_banks (id INTEGER PRIMARY KEY)",
        """INSERT INTO deleted_banks
           SELECT DISTINCT bank_id FROM contents WHERE bank_id NOT IN (SELECT id FROM banks)""",
    ),
    (
        # The place in the feed up to which `SqliteBankStore.trim_changes` has removed the rows of deletions.
        "CREATE TABLE trimmed (place INTEGER NOT NULL)",
        "INSERT INTO trimmed VALUES (0)",
    ),
    (
        # The reason why a content was disabled.
        "ALTER TABLE contents ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    ),
)
"""The SQL statements of each migration. The first migration creates version 1 of the schema."""
