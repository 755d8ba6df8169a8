"""The engine's database (DATA_ROOT/meta.db, SQLite in WAL mode), drawn once.

    meta         key -> value                         schema version, engine id, ipv6-global-id (RFC 4193)
    containers   id -> name, created, record          record: JSON of containers/record.py
                 name is unique; the row is written before the 2xx that acknowledges it
    content      digest -> size, media_type           blobs in content/blobs/sha256/HEX; a row only for complete blobs
    images       id -> chain_id, created, size, driver, manifest, parent
                 id "sha256:HEX" of the config blob; manifest: digest of the stored manifest or ""
    layers       chain_id -> parent, diff_id, size    one row per committed snapshot and driver
    tags         name -> image, updated               name "docker.io/library/busybox:latest", fully spelled out
    networks     id -> name, record
    endpoints    container, network -> record         record: JSON of network/api.py Endpoint
    addresses    pool, address -> container           what IPAM gave out; '' when it went to a sandbox kept ready
    announced    network, endpoint -> plugin          what plugins were told of; endpoint '' is the network itself
    volumes      name -> record
    distribution diff_id, digest, repository -> size, media_type   compressed forms of layers, and who has them; a row
                 goes with the last layer of its diff_id

Change it together with a new entry in MIGRATIONS: entry N brings a database of version N to N + 1.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE containers (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL, record BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE content (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, media_type TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE images (
        id TEXT PRIMARY KEY, chain_id TEXT NOT NULL, created INTEGER NOT NULL, size INTEGER NOT NULL,
        driver TEXT NOT NULL, manifest TEXT NOT NULL DEFAULT '', parent TEXT NOT NULL DEFAULT ''
    ) WITHOUT ROWID;
    CREATE TABLE layers (
        chain_id TEXT NOT NULL, driver TEXT NOT NULL, parent TEXT NOT NULL, diff_id TEXT NOT NULL,
        size INTEGER NOT NULL, PRIMARY KEY (driver, chain_id)
    ) WITHOUT ROWID;
    CREATE TABLE tags (
        name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images (id), updated INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE networks (id TEXT PRIMARY KEY, name TEXT NOT NULL, record BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE endpoints (
        container TEXT NOT NULL, network TEXT NOT NULL, record BLOB NOT NULL, PRIMARY KEY (container, network)
    ) WITHOUT ROWID;
    CREATE TABLE addresses (
        pool TEXT NOT NULL, address TEXT NOT NULL, container TEXT NOT NULL, PRIMARY KEY (pool, address)
    ) WITHOUT ROWID;
    CREATE TABLE volumes (name TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE distribution (
        diff_id TEXT NOT NULL, digest TEXT NOT NULL, repository TEXT NOT NULL, size INTEGER NOT NULL,
        media_type TEXT NOT NULL, PRIMARY KEY (diff_id, digest, repository)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE announced (
        plugin TEXT NOT NULL, network TEXT NOT NULL, endpoint TEXT NOT NULL, PRIMARY KEY (network, endpoint)
    ) WITHOUT ROWID;
    """,
)
