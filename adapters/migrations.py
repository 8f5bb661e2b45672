"""The schema of registry.db, as numbered migrations: entry n brings `PRAGMA user_version` from n to n + 1.

Entries are never changed once released, only added.
"""

DATANETS = """
CREATE TABLE namespaces (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('account', 'datanet')),
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE documents (                       -- everything the log is owed, in the order in which it came to be
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    content BLOB NOT NULL
) STRICT;

CREATE TABLE datanets (
    name TEXT PRIMARY KEY REFERENCES namespaces (name),
    licence TEXT NOT NULL,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    document TEXT NOT NULL REFERENCES documents (digest),
    policy TEXT NOT NULL REFERENCES documents (digest),
    latest TEXT                                -- the version asked for last
) STRICT;

CREATE TABLE contributions (
    digest TEXT PRIMARY KEY REFERENCES documents (digest),
    datanet TEXT NOT NULL REFERENCES datanets (name),
    sequence INTEGER NOT NULL,                 -- 1, 2, ... within the Datanet
    contributor TEXT NOT NULL,
    submitted_by TEXT NOT NULL,
    licence TEXT NOT NULL,
    examples INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    withdrawal TEXT REFERENCES documents (digest),
    UNIQUE (datanet, sequence)
) STRICT;

CREATE TABLE examples (
    digest TEXT PRIMARY KEY,
    content BLOB NOT NULL
) STRICT;

CREATE TABLE contribution_examples (
    datanet TEXT NOT NULL,
    example TEXT NOT NULL REFERENCES examples (digest),
    contribution TEXT NOT NULL REFERENCES contributions (digest),
    line INTEGER NOT NULL,
    PRIMARY KEY (datanet, example, contribution)
) STRICT, WITHOUT ROWID;
CREATE INDEX contribution_examples_by_contribution ON contribution_examples (contribution, line);

CREATE TABLE versions (
    datanet TEXT NOT NULL REFERENCES datanets (name),
    digest TEXT NOT NULL,                      -- the Merkle root
    sequence INTEGER NOT NULL,                 -- 1, 2, ... within the Datanet
    examples INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    document TEXT NOT NULL REFERENCES documents (digest),
    PRIMARY KEY (datanet, digest),
    UNIQUE (datanet, sequence)
) STRICT;

CREATE TABLE version_contributions (
    datanet TEXT NOT NULL,
    version TEXT NOT NULL,
    contribution TEXT NOT NULL REFERENCES contributions (digest),
    PRIMARY KEY (datanet, version, contribution),
    FOREIGN KEY (datanet, version) REFERENCES versions (datanet, digest)
) STRICT, WITHOUT ROWID;
"""

ADAPTERS = """
CREATE TABLE adapters (
    digest TEXT PRIMARY KEY REFERENCES documents (digest),   -- the manifest's
    publisher TEXT NOT NULL,
    facts BLOB NOT NULL,                       -- canonical JSON: what settlement must know
    created_ms INTEGER NOT NULL,
    revocation TEXT REFERENCES documents (digest)
) STRICT;

CREATE TABLE adapter_names (
    namespace TEXT NOT NULL REFERENCES namespaces (name),
    adapter TEXT NOT NULL,
    promoted TEXT NOT NULL,                    -- a tag, or a digest
    PRIMARY KEY (namespace, adapter)
) STRICT;

CREATE TABLE tags (
    namespace TEXT NOT NULL,
    adapter TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES adapters (digest),
    updated_ms INTEGER NOT NULL,
    PRIMARY KEY (namespace, adapter, tag),
    FOREIGN KEY (namespace, adapter) REFERENCES adapter_names (namespace, adapter)
) STRICT;

CREATE TABLE name_digests (                    -- every digest a name ever led to: what may be promoted under it
    namespace TEXT NOT NULL,
    adapter TEXT NOT NULL,
    digest TEXT NOT NULL REFERENCES adapters (digest),
    PRIMARY KEY (namespace, adapter, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE stagings (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    namespace TEXT NOT NULL,
    adapter TEXT NOT NULL,
    tag TEXT,                                  -- NULL: the default tag
    publisher TEXT NOT NULL,
    facts BLOB NOT NULL,
    explicit INTEGER NOT NULL,                 -- 1 if the publisher declared weights, 0 if they are the default
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX stagings_by_digest ON stagings (digest);
"""

VOTES = """
CREATE TABLE votes (                           -- the last vote of each contributor; all are in documents
    datanet TEXT NOT NULL REFERENCES datanets (name),
    voter TEXT NOT NULL,
    split_ppm TEXT NOT NULL,
    effective TEXT NOT NULL,
    document TEXT NOT NULL REFERENCES documents (digest),
    PRIMARY KEY (datanet, voter)
) STRICT, WITHOUT ROWID;
"""

COMPOSITIONS = """
CREATE TABLE compositions (                    -- composed for requests: no name, and files only while there is room
    digest TEXT PRIMARY KEY REFERENCES documents (digest),   -- the manifest's
    parts TEXT NOT NULL,                       -- canonical JSON: digests of the parts to weights in ppm
    facts BLOB NOT NULL,                       -- as of adapters
    bytes INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    used_ms INTEGER                            -- NULL: the files made way for others
) STRICT;
CREATE INDEX compositions_by_parts ON compositions (parts);
"""

NEAR_DUPLICATES = """
ALTER TABLE datanets ADD COLUMN near_duplicates TEXT NOT NULL DEFAULT 'accept'  -- Datanets made before promised nothing
    CHECK (near_duplicates IN ('accept', 'set-aside'));

CREATE TABLE version_set_aside (               -- near duplicates that are not in the version
    datanet TEXT NOT NULL,
    version TEXT NOT NULL,
    example TEXT NOT NULL REFERENCES examples (digest),
    near_duplicate_of TEXT NOT NULL REFERENCES examples (digest),
    PRIMARY KEY (datanet, version, example),
    FOREIGN KEY (datanet, version) REFERENCES versions (datanet, digest)
) STRICT, WITHOUT ROWID;
"""

MIGRATIONS = (DATANETS, ADAPTERS, VOTES, COMPOSITIONS, NEAR_DUPLICATES)
