-- The log. A row's id says when it came; `trace` is the id of the chain's first receipt, so that
-- UNIQUE (trace, hop) guards every chain with small keys that grow at the right edge.
CREATE TABLE receipts (
    id INTEGER PRIMARY KEY,
    trace INTEGER NOT NULL,
    hop INTEGER NOT NULL CHECK (hop >= 1),
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    ts_us INTEGER NOT NULL,
    period TEXT NOT NULL,
    vex_units INTEGER NOT NULL CHECK (vex_units >= 0),
    fu_tokens INTEGER NOT NULL CHECK (fu_tokens >= 0),
    receipt_hash BLOB NOT NULL CHECK (length(receipt_hash) = 32),
    jws TEXT NOT NULL,
    canonical BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX receipts_chain ON receipts (trace, hop);
CREATE UNIQUE INDEX receipts_hash ON receipts (receipt_hash);
-- The receipts behind an invoice line, in the order they came.
CREATE INDEX receipts_metered ON receipts (tenant, period, id)
    WHERE vex_units > 0 OR fu_tokens > 0;

-- Where each chain ends. The primary key guards (tenant, trace_id) against a second beginning.
CREATE TABLE heads (
    tenant TEXT NOT NULL,
    trace_id TEXT NOT NULL,
    trace INTEGER NOT NULL,
    hop INTEGER NOT NULL,
    receipt_hash BLOB NOT NULL,
    PRIMARY KEY (tenant, trace_id)
) STRICT, WITHOUT ROWID;

-- One row per idempotency key. `receipt` is NULL while a claim is open; `spent` marks a key that
-- claimed a forward and must never act again.
CREATE TABLE idempotency (
    tenant TEXT NOT NULL,
    key_hash BLOB NOT NULL CHECK (length(key_hash) = 32),
    fingerprint BLOB NOT NULL,
    receipt INTEGER,
    spent INTEGER NOT NULL,
    PRIMARY KEY (tenant, key_hash)
) STRICT, WITHOUT ROWID;

-- The open claims behind idempotency rows without a receipt.
CREATE TABLE claims (
    tenant TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    trace_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    fence INTEGER NOT NULL,
    claimed_us INTEGER NOT NULL,
    lease_until_us INTEGER NOT NULL,
    intent BLOB NOT NULL,
    PRIMARY KEY (tenant, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX claims_lease ON claims (lease_until_us);
CREATE INDEX claims_owner ON claims (owner);

-- What callers were told. An erased body is NULL; an expired row is gone.
CREATE TABLE answers (
    receipt INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    key_hash BLOB NOT NULL,
    trace_id TEXT NOT NULL,
    ts_us INTEGER NOT NULL,
    status INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    body BLOB
) STRICT;
CREATE INDEX answers_age ON answers (ts_us);

-- Normalised payloads with their salts. An erased body is NULL.
CREATE TABLE payloads (
    receipt INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    cid BLOB NOT NULL CHECK (length(cid) = 32),
    ts_us INTEGER NOT NULL,
    body BLOB,
    salt BLOB
) STRICT;
CREATE INDEX payloads_cid ON payloads (tenant, cid);

-- Running totals, moved once per batch. Each process has its own shard, so that two processes do
-- not wait for each other's commit; a total is the sum over its shards.
CREATE TABLE usage_totals (
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    meter TEXT NOT NULL,
    shard INTEGER NOT NULL,
    units INTEGER NOT NULL,
    PRIMARY KEY (tenant, period, meter, shard)
) STRICT, WITHOUT ROWID;

-- Fallback units used and held per quota period, and the holds themselves.
CREATE TABLE fu_quota (
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    used INTEGER NOT NULL CHECK (used >= 0),
    reserved INTEGER NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (tenant, period)
) STRICT, WITHOUT ROWID;
CREATE TABLE fu_holds (
    hold_id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    tokens INTEGER NOT NULL CHECK (tokens >= 0),
    expires_us INTEGER NOT NULL,
    settled_us INTEGER,
    used INTEGER,
    estimated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX fu_holds_open ON fu_holds (expires_us) WHERE settled_us IS NULL;
CREATE INDEX fu_holds_settled ON fu_holds (settled_us) WHERE settled_us IS NOT NULL;

-- Public signing keys, from which the JWKS is served.
CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,
    public BLOB NOT NULL CHECK (length(public) = 32),
    alias TEXT,
    created_us INTEGER NOT NULL,
    nbf_us INTEGER,
    exp_us INTEGER,
    retired_us INTEGER,
    revoked_us INTEGER
) STRICT;

-- Types and mappings added at run time; tenant '' serves everyone.
CREATE TABLE registry_documents (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    document BLOB NOT NULL,
    cid BLOB NOT NULL CHECK (length(cid) = 32),
    created_us INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX registry_documents_name ON registry_documents (tenant, kind, name);

-- The row that a readiness probe rewrites.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at_us INTEGER NOT NULL
) STRICT;
INSERT INTO probe VALUES (1, 0);
