-- What was promised about each sandbox. Times are microseconds since 1970, UTC.
CREATE TABLE sandboxes (
    id              TEXT    NOT NULL PRIMARY KEY,
    template        TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('running', 'paused')),
    epoch           INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    end_at          INTEGER NOT NULL,
    -- Seconds given at creation; a wake by traffic grants at least this again.
    timeout         INTEGER NOT NULL,
    idle_timeout    INTEGER,
    auto_pause      INTEGER NOT NULL,
    auto_resume     INTEGER NOT NULL,
    envd_token      TEXT,
    traffic_token   TEXT,
    vcpus           INTEGER NOT NULL,
    memory          INTEGER NOT NULL,
    disk            INTEGER NOT NULL,
    -- JSON objects.
    metadata        TEXT    NOT NULL,
    env             TEXT    NOT NULL,
    network         TEXT
) STRICT;

CREATE INDEX sandboxes_by_start ON sandboxes (started_at, id);
CREATE INDEX sandboxes_by_end ON sandboxes (state, end_at);
