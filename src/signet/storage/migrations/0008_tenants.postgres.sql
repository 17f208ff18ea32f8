-- Tenants made at run time. `document` holds the members of a tenant as SP_API_KEYS has them.
CREATE TABLE tenants (
    tenant TEXT COLLATE "C" PRIMARY KEY,
    document BYTEA NOT NULL,
    created_us BIGINT NOT NULL,
    changed_us BIGINT NOT NULL
);

-- API keys made at run time: a hash, never the key. `pepper` names the secret that the hash was
-- made with, NULL for a plain SHA-256. `document` holds the scopes and the members that narrow it.
-- `first` is the first key of the line that rotations continue, `rotated_to` the next one.
CREATE TABLE api_keys (
    public_id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    hash BYTEA NOT NULL CHECK (length(hash) = 32),
    pepper TEXT,
    label TEXT NOT NULL,
    document BYTEA NOT NULL,
    first TEXT NOT NULL,
    rotated_to TEXT,
    created_us BIGINT NOT NULL,
    expires_us BIGINT,
    revoked_us BIGINT
);
CREATE INDEX api_keys_tenant ON api_keys (tenant, public_id);

-- Grows with every change of the two, in the transaction that makes it. Changes wait for each
-- other here, so who sees a revision sees everything that came before it.
CREATE TABLE keyring (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    revision BIGINT NOT NULL
);
INSERT INTO keyring VALUES (1, 0);
