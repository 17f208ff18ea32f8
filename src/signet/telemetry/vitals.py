"""What only the database knows of the gateway's state; read anew for each scrape of `/metrics`."""

from __future__ import annotations

from dataclasses import dataclass, field


def _told(doc: str) -> int:
    """Declare a gauge: its family is `signet_` and the field's name."""
    return field(metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """One look at the database. All processes that share it tell the same."""

    schema_version: int = _told("The number of the newest migration.")
    database_bytes: int = _told("The size of the database.")
    receipts_last_number: int = _told("The number of the newest receipt; some may be skipped.")
    billing_uncounted_receipts: int = _told("Receipts that billing has not counted yet, at most.")
    open_claims: int = _told("Exchanges that hold a claim: they may be acting outside.")
    overdue_claims: int = _told("Claims whose lease has ended, so that recovery is due.")
    fallback_open_holds: int = _told("Holds on a fallback quota that are not settled.")
    fallback_held_tokens: int = _told("Tokens that those holds keep back.")
    outbox_waiting_windows: int = _told("Billing windows that wait to be sent to Stripe.")
    outbox_oldest_seconds: int = _told("For how long the oldest of them could have been sent.")
    outbox_held_windows: int = _told("Billing windows that are held back for an operator.")
    outbox_dead_windows: int = _told("Billing windows that Stripe refuses: the dead letters.")
    billing_stopped_lanes: int = _told("Lanes to Stripe that wait for an operator.")
    billing_open_periods: int = _told("Tenants' months that have used something and are open.")
    audit_entries: int = _told("Entries ever appended to the audit chains, pruned ones included.")
    signing_keys_active: int = _told("Signing keys that are neither retired nor revoked.")
    signing_key_age_seconds: int = _told("For how long the key that signs has been signing.")
