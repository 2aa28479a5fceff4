-- What clients call a sandbox's template.
ALTER TABLE sandboxes ADD COLUMN alias TEXT;
UPDATE sandboxes SET alias = template;
-- Whether a pause at the end keeps memory.
ALTER TABLE sandboxes ADD COLUMN auto_pause_memory INTEGER NOT NULL DEFAULT 1;
-- Whether a paused sandbox is killed when its time is up all the same, and when that is.
ALTER TABLE sandboxes ADD COLUMN kill_paused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN doomed_at INTEGER;
-- What the latest pause kept.
ALTER TABLE sandboxes ADD COLUMN keep TEXT CHECK (keep IN ('full', 'filesystem'));

CREATE INDEX sandboxes_by_doom ON sandboxes (doomed_at) WHERE doomed_at IS NOT NULL;

-- Templates made of snapshots. Those of the host's own artefacts are not here.
CREATE TABLE templates (
    id          TEXT    NOT NULL PRIMARY KEY,
    public      INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- Names of templates, those of the host too.
CREATE TABLE names (
    name        TEXT    NOT NULL PRIMARY KEY,
    template    TEXT    NOT NULL
) STRICT;

CREATE INDEX names_by_template ON names (template);

-- Snapshots that were promised to be kept.
CREATE TABLE builds (
    id          TEXT    NOT NULL PRIMARY KEY,
    template    TEXT    NOT NULL REFERENCES templates (id),
    snapshot    TEXT    NOT NULL,
    keep        TEXT    NOT NULL CHECK (keep IN ('full', 'filesystem')),
    -- The sandbox it was taken of.
    origin      TEXT    NOT NULL,
    vcpus       INTEGER NOT NULL,
    memory      INTEGER NOT NULL,
    disk        INTEGER NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX builds_by_template ON builds (template);
CREATE INDEX builds_by_snapshot ON builds (snapshot);
CREATE INDEX builds_by_time ON builds (created_at, id);

-- Which build of a template a tag means. A build of one of the host's templates has no row of its own.
CREATE TABLE tags (
    template    TEXT    NOT NULL,
    tag         TEXT    NOT NULL,
    build       TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (template, tag)
) STRICT;

CREATE INDEX tags_by_build ON tags (build);

-- Answers to creations that carried an idempotency key.
CREATE TABLE answers (
    number      INTEGER NOT NULL PRIMARY KEY,
    key         TEXT    NOT NULL UNIQUE,
    -- Of the request.
    digest      TEXT    NOT NULL,
    body        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX answers_by_time ON answers (created_at);
