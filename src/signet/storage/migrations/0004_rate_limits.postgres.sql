-- Rate-limit buckets. Unlogged: a crash may empty it, at the price of one burst for each bucket.
-- The columns after arrival_us are the arguments of the last request (see storage/limits.py).
CREATE UNLOGGED TABLE rate_limits (
    bucket TEXT PRIMARY KEY,
    arrival_us BIGINT NOT NULL,
    at_us BIGINT NOT NULL,
    interval_us BIGINT NOT NULL,
    full_us BIGINT NOT NULL,
    wanted BIGINT NOT NULL,
    granted BIGINT NOT NULL
) WITH (fillfactor = 50);
