-- What was used, per UTC hour, as counted from the receipts.
CREATE TABLE billing_hours (
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    meter TEXT NOT NULL,
    hour BIGINT NOT NULL,
    units BIGINT NOT NULL,
    PRIMARY KEY (tenant, period, meter, hour)
);

-- How far the log has been counted: the id of the last receipt in billing_hours.
CREATE TABLE billing_cursor (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    receipt BIGINT NOT NULL
);
INSERT INTO billing_cursor VALUES (1, 0);

-- The plans that periods were priced by, as documents that load again as the same plan.
CREATE TABLE billing_plans (
    cid TEXT PRIMARY KEY,
    document BYTEA NOT NULL
);

-- One tenant's month: the plan it pinned at its first unit, and the units allocated so far.
CREATE TABLE billing_periods (
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    plan TEXT NOT NULL,
    end_us BIGINT NOT NULL,
    vex BIGINT NOT NULL,
    fu BIGINT NOT NULL,
    closed_us BIGINT,
    PRIMARY KEY (tenant, period)
);
CREATE INDEX billing_periods_end ON billing_periods (end_us);

-- What Stripe should be told, and what it is known to have been told. `due_us` is NULL while there
-- is nothing to send or `held` says why nothing may be sent. The flight_ columns are one message
-- whose fate is not known yet.
CREATE TABLE billing_windows (
    tenant TEXT NOT NULL,
    item TEXT NOT NULL,
    hour BIGINT NOT NULL,
    period TEXT NOT NULL,
    meter TEXT NOT NULL,
    value BIGINT NOT NULL,
    version BIGINT NOT NULL,
    sent_value BIGINT NOT NULL,
    sent_version BIGINT NOT NULL,
    dead_version BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    flight_version BIGINT,
    flight_value BIGINT,
    flight_since_us BIGINT,
    flight_attempt BIGINT,
    due_us BIGINT,
    settled_us BIGINT NOT NULL,
    held TEXT,
    reason TEXT,
    PRIMARY KEY (tenant, item, hour, period)
);
CREATE INDEX billing_windows_due ON billing_windows (tenant, item, due_us)
    WHERE due_us IS NOT NULL;
CREATE INDEX billing_windows_stuck ON billing_windows (tenant, item, hour)
    WHERE held IS NOT NULL OR dead_version = version;
CREATE INDEX billing_windows_period ON billing_windows (tenant, period, meter);

-- Who may send for a customer and meter: at most one worker, until its lease ends.
CREATE TABLE billing_lanes (
    lane TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fence BIGINT NOT NULL,
    lease_until_us BIGINT NOT NULL,
    stopped TEXT
);
CREATE INDEX billing_lanes_held ON billing_lanes (owner) WHERE lease_until_us > 0;

-- Signed statements. A later revision adjusts an earlier one and never replaces it.
CREATE TABLE billing_statements (
    tenant TEXT NOT NULL,
    period TEXT NOT NULL,
    revision BIGINT NOT NULL,
    upto BIGINT NOT NULL,
    created_us BIGINT NOT NULL,
    document BYTEA NOT NULL,
    PRIMARY KEY (tenant, period, revision)
);

-- What tenants are told, once each; `mark` is what makes an event the same event.
CREATE TABLE tenant_events (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant TEXT NOT NULL,
    kind TEXT NOT NULL,
    mark TEXT NOT NULL,
    at_us BIGINT NOT NULL,
    document BYTEA NOT NULL
);
CREATE UNIQUE INDEX tenant_events_mark ON tenant_events (tenant, kind, mark);
CREATE INDEX tenant_events_order ON tenant_events (tenant, id);

-- The name under which this database speaks to Stripe. It is drawn anew after a restore, and
-- nothing is sent before Stripe was asked what it holds and `restored_us` is NULL again.
CREATE TABLE billing_deployment (
    id SMALLINT PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    restored_us BIGINT
);
