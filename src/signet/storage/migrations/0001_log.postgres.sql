-- The log. `trace` is the id of the chain's first receipt, so that UNIQUE (trace, hop) guards every
-- chain with small keys that grow at the right edge.
CREATE TABLE receipts (
    id BIGINT PRIMARY KEY,
    trace BIGINT NOT NULL,
    hop BIGINT NOT NULL CHECK (hop >= 1),
    tenant TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    ts_us BIGINT NOT NULL,
    period TEXT COLLATE "C" NOT NULL,
    vex_units BIGINT NOT NULL CHECK (vex_units >= 0),
    fu_tokens BIGINT NOT NULL CHECK (fu_tokens >= 0),
    receipt_hash BYTEA NOT NULL CHECK (length(receipt_hash) = 32),
    jws TEXT NOT NULL,
    canonical BYTEA NOT NULL
);
CREATE UNIQUE INDEX receipts_chain ON receipts (trace, hop);
CREATE UNIQUE INDEX receipts_hash ON receipts (receipt_hash);
-- The receipts behind an invoice line, in the order they came.
CREATE INDEX receipts_metered ON receipts (tenant, period, id)
    WHERE vex_units > 0 OR fu_tokens > 0;

-- Ids are given out before their transactions commit, so a later id can be seen before an earlier
-- one. Whoever takes ids first locks, until its commit, the last id given out before; whoever
-- follows the log by id stops at the lowest such lock, below which nothing can appear any more.
CREATE SEQUENCE receipt_id MINVALUE 0 START 0;
SELECT nextval('receipt_id');
CREATE FUNCTION receipt_ids(wanted BIGINT) RETURNS SETOF BIGINT LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared((20839::bigint << 48) | last_value) FROM receipt_id;
    RETURN QUERY SELECT nextval('receipt_id') FROM generate_series(1, wanted);
END
$$;
CREATE FUNCTION receipts_settled() RETURNS BIGINT LANGUAGE plpgsql AS $$
DECLARE
    given_out BIGINT;
    unsettled BIGINT;
BEGIN
    -- In this order: whoever took ids up to `given_out` holds its lock by now, or has ended.
    SELECT last_value INTO given_out FROM receipt_id;
    SELECT min((classid::bigint & 65535) << 32 | objid::bigint) INTO unsettled
        FROM pg_locks
        WHERE locktype = 'advisory' AND objsubid = 1 AND classid::bigint >> 16 = 20839
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database());
    RETURN least(given_out, unsettled);
END
$$;

-- Where each chain ends. The primary key guards (tenant, trace_id) against a second beginning.
CREATE TABLE heads (
    tenant TEXT COLLATE "C" NOT NULL,
    trace_id TEXT COLLATE "C" NOT NULL,
    trace BIGINT NOT NULL,
    hop BIGINT NOT NULL,
    receipt_hash BYTEA NOT NULL,
    PRIMARY KEY (tenant, trace_id)
) WITH (fillfactor = 80);

-- One row per idempotency key. `receipt` is NULL while a claim is open; `spent` marks a key that
-- claimed a forward and must never act again.
CREATE TABLE idempotency (
    tenant TEXT COLLATE "C" NOT NULL,
    key_hash BYTEA NOT NULL CHECK (length(key_hash) = 32),
    fingerprint BYTEA NOT NULL,
    receipt BIGINT,
    spent BIGINT NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);

-- The open claims behind idempotency rows without a receipt.
CREATE TABLE claims (
    tenant TEXT COLLATE "C" NOT NULL,
    key_hash BYTEA NOT NULL,
    trace_id TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    fence BIGINT NOT NULL,
    claimed_us BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    intent BYTEA NOT NULL,
    PRIMARY KEY (tenant, key_hash)
);
CREATE INDEX claims_lease ON claims (lease_until_us);
CREATE INDEX claims_owner ON claims (owner);

-- What callers were told. An erased body is NULL; an expired row is gone.
CREATE TABLE answers (
    receipt BIGINT PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    key_hash BYTEA NOT NULL,
    trace_id TEXT NOT NULL,
    ts_us BIGINT NOT NULL,
    status BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    body BYTEA
);
CREATE INDEX answers_age ON answers (ts_us);

-- Normalised payloads with their salts. An erased body is NULL.
CREATE TABLE payloads (
    receipt BIGINT PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    cid BYTEA NOT NULL CHECK (length(cid) = 32),
    ts_us BIGINT NOT NULL,
    body BYTEA,
    salt BYTEA
);
CREATE INDEX payloads_cid ON payloads (tenant, cid);

-- Running totals, moved once per batch. Each process has its own shard, so that two processes do
-- not wait for each other's commit; a total is the sum over its shards.
CREATE TABLE usage_totals (
    tenant TEXT COLLATE "C" NOT NULL,
    period TEXT COLLATE "C" NOT NULL,
    meter TEXT COLLATE "C" NOT NULL,
    shard BIGINT NOT NULL,
    units BIGINT NOT NULL,
    PRIMARY KEY (tenant, period, meter, shard)
) WITH (fillfactor = 50);

-- Fallback units used and held per quota period, and the holds themselves.
CREATE TABLE fu_quota (
    tenant TEXT COLLATE "C" NOT NULL,
    period TEXT COLLATE "C" NOT NULL,
    used BIGINT NOT NULL CHECK (used >= 0),
    reserved BIGINT NOT NULL CHECK (reserved >= 0),
    PRIMARY KEY (tenant, period)
) WITH (fillfactor = 50);
CREATE TABLE fu_holds (
    hold_id TEXT COLLATE "C" PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    period TEXT COLLATE "C" NOT NULL,
    tokens BIGINT NOT NULL CHECK (tokens >= 0),
    expires_us BIGINT NOT NULL,
    settled_us BIGINT,
    used BIGINT,
    estimated BIGINT NOT NULL
);
CREATE INDEX fu_holds_open ON fu_holds (expires_us) WHERE settled_us IS NULL;
CREATE INDEX fu_holds_settled ON fu_holds (settled_us) WHERE settled_us IS NOT NULL;

-- Public signing keys, from which the JWKS is served.
CREATE TABLE signing_keys (
    kid TEXT COLLATE "C" PRIMARY KEY,
    public BYTEA NOT NULL CHECK (length(public) = 32),
    alias TEXT,
    created_us BIGINT NOT NULL,
    nbf_us BIGINT,
    exp_us BIGINT,
    retired_us BIGINT,
    revoked_us BIGINT
);

-- Types and mappings added at run time; tenant '' serves everyone.
CREATE TABLE registry_documents (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT COLLATE "C" NOT NULL,
    kind TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    document BYTEA NOT NULL,
    cid BYTEA NOT NULL CHECK (length(cid) = 32),
    created_us BIGINT NOT NULL
);
CREATE UNIQUE INDEX registry_documents_name ON registry_documents (tenant, kind, name);

-- The row that a readiness probe rewrites.
CREATE TABLE probe (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    at_us BIGINT NOT NULL
);
INSERT INTO probe VALUES (1, 0);
