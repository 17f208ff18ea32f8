-- What is still open, for whoever closes it and for gauges, however much has been closed.
CREATE INDEX billing_periods_open ON billing_periods (end_us, tenant) WHERE closed_us IS NULL;
CREATE INDEX billing_lanes_stopped ON billing_lanes (lane) WHERE stopped IS NOT NULL;
