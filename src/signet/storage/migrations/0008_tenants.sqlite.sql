-- Tenants made at run time. `document` holds the members of a tenant as SP_API_KEYS has them.
CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY,
    document BLOB NOT NULL,
    created_us INTEGER NOT NULL,
    changed_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- API keys made at run time: a hash, never the key. `pepper` names the secret that the hash was
-- made with, NULL for a plain SHA-256. `document` holds the scopes and the members that narrow it.
-- `first` is the first key of the line that rotations continue, `rotated_to` the next one.
CREATE TABLE api_keys (
    public_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    pepper TEXT,
    label TEXT NOT NULL,
    document BLOB NOT NULL,
    first TEXT NOT NULL,
    rotated_to TEXT,
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    revoked_us INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX api_keys_tenant ON api_keys (tenant, public_id);

-- Grows with every change of the two, in the transaction that makes it.
CREATE TABLE keyring (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO keyring VALUES (1, 0);
