-- The audit log: one hash chain per tenant, `_system` among them. `body` is the canonical entry;
-- `reached_us` is the newest time in the chain up to it, so that it never falls with `seq` and a
-- time is found by the index although two nodes' clocks differ.
CREATE TABLE audit_entries (
    tenant TEXT NOT NULL,
    seq INTEGER NOT NULL CHECK (seq >= 1),
    reached_us INTEGER NOT NULL,
    action TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT;
CREATE INDEX audit_entries_reached ON audit_entries (tenant, reached_us, seq);

-- Where each chain ends, whatever has been pruned at its beginning.
CREATE TABLE audit_heads (
    tenant TEXT NOT NULL,
    seq INTEGER NOT NULL,
    entry_hash BLOB NOT NULL CHECK (length(entry_hash) = 32),
    reached_us INTEGER NOT NULL,
    PRIMARY KEY (tenant)
) STRICT, WITHOUT ROWID;
