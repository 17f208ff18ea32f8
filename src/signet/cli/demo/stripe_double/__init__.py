"""A loopback Stripe, true to the documented rules of usage billing.

`ledger` holds the rules, `server` the wire and its faults. The demo sends a tenant's month to it,
and the tests do worse. Documented at:

- https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api (whole numbers, 35
  days back and 5 minutes ahead, one concurrent call per customer and meter)
- https://docs.stripe.com/api/billing/meter-event/create (identifiers, unique for 24 hours)
- https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure (windows overwrite)
- https://docs.stripe.com/api/idempotent_requests (answers kept, failures included)
- https://docs.stripe.com/changelog/basil (usage records end with 2025-03-31)
"""
