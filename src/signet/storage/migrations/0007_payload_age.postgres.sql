-- Payloads that are still there, by their age, for retention.
CREATE INDEX payloads_age ON payloads (tenant, ts_us) WHERE body IS NOT NULL;
