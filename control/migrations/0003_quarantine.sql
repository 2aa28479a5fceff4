-- The identity of the data directory that the ledger belongs to, and the number of its starts.
CREATE TABLE meta (
    name        TEXT    NOT NULL PRIMARY KEY,
    value       TEXT    NOT NULL
) STRICT;

-- Objects of the host that the ledger does not know. Nothing reaches them until they are taken back.
CREATE TABLE quarantine (
    kind        TEXT    NOT NULL CHECK (kind IN ('sandbox', 'snapshot')),
    id          TEXT    NOT NULL,
    since       INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT;

-- Snapshots whose last reference was removed, until the host has released them.
CREATE TABLE releases (
    snapshot    TEXT    NOT NULL PRIMARY KEY
) STRICT;

CREATE TRIGGER build_removed AFTER DELETE ON builds BEGIN
    INSERT OR IGNORE INTO releases (snapshot) VALUES (OLD.snapshot);
END;

CREATE INDEX builds_by_origin ON builds (origin, created_at);
