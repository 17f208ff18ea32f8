-- When the last month ends that a plan priced before another one did. Its items must be reached until
-- Stripe holds nothing for them.
ALTER TABLE billing_plans ADD COLUMN replaced_until_us BIGINT;
CREATE INDEX billing_plans_replaced ON billing_plans (replaced_until_us)
    WHERE replaced_until_us IS NOT NULL;
