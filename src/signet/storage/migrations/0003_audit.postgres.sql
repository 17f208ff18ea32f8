-- The audit log: one hash chain per tenant, `_system` among them. `body` is the canonical entry;
-- `reached_us` is the newest time in the chain up to it, so that it never falls with `seq` and a
-- time is found by the index although two nodes' clocks differ.
CREATE TABLE audit_entries (
    tenant TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL CHECK (seq >= 1),
    reached_us BIGINT NOT NULL,
    action TEXT NOT NULL,
    body BYTEA NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX audit_entries_reached ON audit_entries (tenant, reached_us, seq);

-- Where each chain ends, whatever has been pruned at its beginning.
CREATE TABLE audit_heads (
    tenant TEXT COLLATE "C" NOT NULL,
    seq BIGINT NOT NULL,
    entry_hash BYTEA NOT NULL CHECK (length(entry_hash) = 32),
    reached_us BIGINT NOT NULL,
    PRIMARY KEY (tenant)
) WITH (fillfactor = 50);
