"""Billing windows on their way to Stripe: what is due, who may send it, how it went.

A lane is a customer and a meter. Whoever holds its lease may send for it, one message at a time;
the fence tells a late holder that it no longer is one. A message is written down before it is
sent, so after a crash the next holder sends exactly the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from signet.core.billing import Flight, Window
from signet.storage.tx import PerRow, ReadTx, Tx


class Outlet(NamedTuple):
    """One tenant's configured item: what a lane empties."""

    tenant: str
    item: str


class WindowKey(NamedTuple):
    """Which window. `hour` is the first second of its UTC hour, or of its month where that is
    later: a zone's month may begin inside an hour."""

    tenant: str
    item: str
    hour: int
    period: str


class Gain(NamedTuple):
    """Units that a window gained; negative where a correction took them back."""

    key: WindowKey
    meter: str
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWindow:
    """A window as it stands in its row."""

    key: WindowKey
    meter: str
    window: Window
    settled_us: int
    held: str | None
    reason: str | None


class StoppedLane(NamedTuple):
    """A lane that waits for an operator."""

    lane: str
    reason: str


class Depth(NamedTuple):
    """How much waits, and since when the oldest of it could have gone."""

    waiting: int
    oldest_due_us: int | None
    held: int
    dead: int


# Windows.

_GAIN = PerRow(
    sqlite="""
        INSERT INTO billing_windows (tenant, item, hour, period, meter, value, due_us,
            version, sent_value, sent_version, dead_version, tries, settled_us)
        VALUES (?, ?, ?, ?, ?, ?, ?, 1, 0, 0, 0, 0, 0)
        ON CONFLICT (tenant, item, hour, period) DO UPDATE SET
            value = billing_windows.value + excluded.value,
            version = billing_windows.version + 1,
            due_us = CASE WHEN billing_windows.held IS NULL
                THEN coalesce(billing_windows.due_us, excluded.due_us) END
    """,
    postgres="""
        INSERT INTO billing_windows (tenant, item, hour, period, meter, value, due_us,
            version, sent_value, sent_version, dead_version, tries, settled_us)
        SELECT k.*, 1, 0, 0, 0, 0, 0 FROM unnest($1::text[], $2::text[], $3::bigint[],
            $4::text[], $5::text[], $6::bigint[], $7::bigint[]) AS k
        ON CONFLICT (tenant, item, hour, period) DO UPDATE SET
            value = billing_windows.value + excluded.value,
            version = billing_windows.version + 1,
            due_us = CASE WHEN billing_windows.held IS NULL
                THEN coalesce(billing_windows.due_us, excluded.due_us) END
    """,
)


async def gain(tx: Tx, gains: Sequence[Gain], *, due_us: int) -> None:
    """Add units to windows, one new version each; no two gains may name the same window.

    A window that was due before stays due then.
    """
    rows = [(*g.key, g.meter, g.units, due_us) for g in gains if g.units]
    if rows:
        await tx.execute_each(_GAIN, rows)


_COLUMNS = """
    tenant, item, hour, period, meter, value, version, sent_value, sent_version, dead_version,
    tries, flight_version, flight_value, flight_since_us, flight_attempt, settled_us, held, reason
"""


def _stored(
    tenant: str,
    item: str,
    hour: int,
    period: str,
    meter: str,
    value: int,
    version: int,
    sent_value: int,
    sent_version: int,
    dead_version: int,
    tries: int,
    flight_version: int | None,
    flight_value: int | None,
    flight_since_us: int | None,
    flight_attempt: int | None,
    settled_us: int,
    held: str | None,
    reason: str | None,
) -> StoredWindow:
    flight = None
    if flight_version is not None:
        flight = Flight(
            version=flight_version,
            value=flight_value or 0,
            since_us=flight_since_us or 0,
            attempt=flight_attempt or 0,
        )
    window = Window(
        value=value,
        version=version,
        sent_value=sent_value,
        sent_version=sent_version,
        dead_version=dead_version,
        tries=tries,
        flight=flight,
    )
    return StoredWindow(
        key=WindowKey(tenant, item, hour, period),
        meter=meter,
        window=window,
        settled_us=settled_us,
        held=held,
        reason=reason,
    )


async def windows_of_period(tx: ReadTx, tenant: str, period: str) -> list[StoredWindow]:
    """Every window of a tenant's month: at most its hours times its items."""
    return await tx.all(
        _stored,
        "SELECT" + _COLUMNS + "FROM billing_windows WHERE tenant = :tenant AND period = :period",
        tenant=tenant,
        period=period,
    )


async def windows_of_outlet(
    tx: ReadTx, outlet: Outlet, first_hour: int, last_hour: int
) -> list[StoredWindow]:
    """An item's windows between two hours, both included."""
    return await tx.all(
        _stored,
        "SELECT"
        + _COLUMNS
        + """FROM billing_windows WHERE tenant = :tenant AND item = :item
            AND hour >= :first AND hour <= :last ORDER BY hour, period""",
        tenant=outlet.tenant,
        item=outlet.item,
        first=first_hour,
        last=last_hour,
    )


async def stuck_windows(tx: ReadTx, limit: int) -> list[StoredWindow]:
    """Windows that are held back or whose newest version Stripe refused."""
    return await tx.all(
        _stored,
        "SELECT"
        + _COLUMNS
        + """FROM billing_windows WHERE held IS NOT NULL OR dead_version = version
            ORDER BY tenant, item, hour LIMIT :limit""",
        limit=limit,
    )


async def depth(tx: ReadTx) -> Depth:
    """What waits in the outbox now, for metrics and alerts."""
    found = await tx.one(
        Depth,
        """SELECT waiting.units, waiting.oldest, stuck.held, stuck.dead FROM
            (SELECT count(*) AS units, min(due_us) AS oldest
                FROM billing_windows WHERE due_us IS NOT NULL) AS waiting,
            (SELECT count(CASE WHEN held IS NOT NULL THEN 1 END) AS held,
                count(CASE WHEN held IS NULL THEN 1 END) AS dead
                FROM billing_windows WHERE held IS NOT NULL OR dead_version = version) AS stuck""",
    )
    return found or Depth(0, None, 0, 0)


# Lanes.


async def due_outlets(tx: ReadTx, now_us: int, limit: int) -> list[Outlet]:
    """Items that have something to send now. An item that cannot be routed stays among them."""
    return await tx.all(
        Outlet,
        """SELECT DISTINCT tenant, item FROM billing_windows
        WHERE due_us <= :now LIMIT :limit""",
        now=now_us,
        limit=limit,
    )


async def claim_lane(tx: Tx, lane: str, *, owner: str, lease_us: int) -> int | None:
    """Take a lane that nobody holds; the fence of the new lease, or None.

    One conditional statement on the database's clock: of any number of workers, in any number of
    processes, one gets it.
    """
    now_us = await tx.now_us()
    return await tx.one(
        int,
        """INSERT INTO billing_lanes (lane, owner, fence, lease_until_us)
        VALUES (:lane, :owner, 1, :until)
        ON CONFLICT (lane) DO UPDATE SET owner = :owner, fence = billing_lanes.fence + 1,
            lease_until_us = :until
        WHERE billing_lanes.lease_until_us <= :now AND billing_lanes.stopped IS NULL
        RETURNING fence""",
        lane=lane,
        owner=owner,
        until=now_us + lease_us,
        now=now_us,
    )


async def keep_lane(tx: Tx, lane: str, fence: int, *, lease_us: int) -> bool:
    """Renew a lease that is still ours; False when another holder has, or had, the lane."""
    until_us = await tx.now_us() + lease_us
    return bool(
        await tx.execute(
            """UPDATE billing_lanes SET lease_until_us = :until
            WHERE lane = :lane AND fence = :fence AND lease_until_us > 0""",
            lane=lane,
            fence=fence,
            until=until_us,
        )
    )


async def release_lane(tx: Tx, lane: str, fence: int) -> None:
    """Give a lane back at once."""
    await tx.execute(
        "UPDATE billing_lanes SET lease_until_us = 0 WHERE lane = :lane AND fence = :fence",
        lane=lane,
        fence=fence,
    )


async def lane_owners(tx: ReadTx) -> list[str]:
    """Who holds lanes now."""
    return await tx.all(str, "SELECT DISTINCT owner FROM billing_lanes WHERE lease_until_us > 0")


async def free_lanes(tx: Tx, owner: str) -> int:
    """Take every lane from an owner that is proven dead; how many it held."""
    return await tx.execute(
        """UPDATE billing_lanes SET lease_until_us = 0, fence = fence + 1
        WHERE owner = :owner AND lease_until_us > 0""",
        owner=owner,
    )


async def stop_lane(tx: Tx, lane: str, fence: int, reason: str) -> None:
    """Let nobody claim a lane until an operator resumes it."""
    await tx.execute(
        """UPDATE billing_lanes SET stopped = :reason, lease_until_us = 0
        WHERE lane = :lane AND fence = :fence""",
        lane=lane,
        fence=fence,
        reason=reason,
    )


async def resume_lanes(tx: Tx) -> int:
    """Let stopped lanes be claimed again; how many there were."""
    return await tx.execute("UPDATE billing_lanes SET stopped = NULL WHERE stopped IS NOT NULL")


async def stopped_lanes(tx: ReadTx, limit: int) -> list[StoppedLane]:
    """Lanes that wait for an operator, with the reason."""
    return await tx.all(
        StoppedLane,
        """SELECT lane, stopped FROM billing_lanes WHERE stopped IS NOT NULL
        ORDER BY lane LIMIT :limit""",
        limit=limit,
    )


# A holder's work. Each of these belongs into a transaction that began with `keep_lane`.


async def due_windows(tx: ReadTx, outlet: Outlet, now_us: int, limit: int) -> list[StoredWindow]:
    """The item's windows that may be sent now, longest due first."""
    return await tx.all(
        _stored,
        "SELECT"
        + _COLUMNS
        + """FROM billing_windows WHERE tenant = :tenant AND item = :item AND due_us <= :now
            ORDER BY due_us, hour LIMIT :limit""",
        tenant=outlet.tenant,
        item=outlet.item,
        now=now_us,
        limit=limit,
    )


async def put_in_flight(tx: Tx, key: WindowKey, flight: Flight) -> None:
    """Write down the message that is about to be sent."""
    await tx.execute(
        """UPDATE billing_windows SET flight_version = :version, flight_value = :value,
            flight_since_us = :since, flight_attempt = :attempt
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period""",
        version=flight.version,
        value=flight.value,
        since=flight.since_us,
        attempt=flight.attempt,
        **key._asdict(),
    )


async def take_back(tx: Tx, key: WindowKey, flight: Flight) -> None:
    """Forget a message that certainly was never sent."""
    await tx.execute(
        """UPDATE billing_windows SET flight_version = NULL
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period
            AND flight_version = :version AND flight_attempt = :attempt""",
        version=flight.version,
        attempt=flight.attempt,
        **key._asdict(),
    )


async def settle_delivered(
    tx: Tx, key: WindowKey, flight: Flight, *, value: int, now_us: int
) -> None:
    """Stripe has the message, and with it holds `value` for the window."""
    await tx.execute(
        """UPDATE billing_windows SET sent_value = :value, sent_version = :version, tries = 0,
            flight_version = NULL, held = NULL, reason = NULL, settled_us = :now,
            due_us = CASE WHEN version > :version THEN CAST(:now AS bigint) END
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period
            AND flight_version = :version""",
        value=value,
        version=flight.version,
        now=now_us,
        **key._asdict(),
    )


async def settle_retry(
    tx: Tx, key: WindowKey, flight: Flight, *, answered: bool, due_us: int, reason: str
) -> None:
    """The message goes out again, unchanged, not before `due_us`."""
    await tx.execute(
        """UPDATE billing_windows SET tries = tries + 1, due_us = :due, reason = :reason,
            flight_attempt = flight_attempt + :answered
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period
            AND flight_version = :version""",
        version=flight.version,
        answered=int(answered),
        due=due_us,
        reason=reason,
        **key._asdict(),
    )


async def settle_dead(tx: Tx, key: WindowKey, flight: Flight, *, reason: str, now_us: int) -> None:
    """Stripe refuses this version; a later one may pass. Nothing is deleted."""
    await tx.execute(
        """UPDATE billing_windows SET dead_version = :version, flight_version = NULL,
            reason = :reason, tries = 0, settled_us = :now,
            due_us = CASE WHEN version > :version THEN CAST(:now AS bigint) END
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period
            AND flight_version = :version""",
        version=flight.version,
        reason=reason,
        now=now_us,
        **key._asdict(),
    )


async def hold_back(tx: Tx, key: WindowKey, reason: str) -> None:
    """Send nothing for the window until something is known that is not known now."""
    await tx.execute(
        """UPDATE billing_windows SET held = :reason, due_us = NULL
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period""",
        reason=reason,
        **key._asdict(),
    )


async def adopt(tx: Tx, key: WindowKey, *, held: int, now_us: int) -> None:
    """Take Stripe's own word for what it holds, and send what differs as a new version."""
    await tx.execute(
        """UPDATE billing_windows SET sent_value = :held, sent_version = version,
            dead_version = 0, tries = 0, flight_version = NULL, held = NULL, reason = NULL,
            settled_us = :now,
            version = CASE WHEN value = :held THEN version ELSE version + 1 END,
            due_us = CASE WHEN value <> :held THEN CAST(:now AS bigint) END
        WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period""",
        held=held,
        now=now_us,
        **key._asdict(),
    )


async def replay(tx: Tx, key: WindowKey, now_us: int) -> bool:
    """Send a refused window once more, as a new version; False when it was not refused."""
    return bool(
        await tx.execute(
            """UPDATE billing_windows SET version = version + 1, due_us = :now, reason = NULL
            WHERE tenant = :tenant AND item = :item AND hour = :hour AND period = :period
                AND dead_version = version AND held IS NULL""",
            now=now_us,
            **key._asdict(),
        )
    )


# After a restore from a backup.


class Deployment(NamedTuple):
    """The name under which this database speaks to Stripe, and since when it must ask first.

    `sends` counts how often it was about to send.
    """

    name: str
    restored_us: int | None
    sends: int


async def deployment(tx: Tx, fresh: str) -> Deployment:
    """Who we are to Stripe; `fresh` becomes the name the first time."""
    await tx.execute(
        "INSERT INTO billing_deployment (id, name) VALUES (1, :fresh) ON CONFLICT DO NOTHING",
        fresh=fresh,
    )
    found = await tx.one(
        Deployment, "SELECT name, restored_us, sends FROM billing_deployment WHERE id = 1"
    )
    assert found is not None, "the row was inserted above, and nothing deletes it"
    return found


async def sends(tx: ReadTx) -> int:
    """How often this database was about to send."""
    return await tx.one(int, "SELECT sends FROM billing_deployment WHERE id = 1") or 0


async def count_send(tx: Tx) -> int:
    """Say that something is about to be sent; how often that was, this time included."""
    counted = await tx.one(
        int, "UPDATE billing_deployment SET sends = sends + 1 WHERE id = 1 RETURNING sends"
    )
    assert counted is not None, "nothing is sent before the deployment has its name"
    return counted


async def restored(tx: Tx, fresh: str, now_us: int, *, sends: int) -> None:
    """After a restore: speak under a new name, and send nothing before Stripe was asked.

    A restored database does not know what was sent after its backup, and would give versions that
    Stripe has seen a second meaning. `sends` is how often it was about to send, as far as is known.
    """
    await tx.execute(
        """INSERT INTO billing_deployment (id, name, restored_us, sends)
        VALUES (1, :fresh, :now, :sends) ON CONFLICT (id) DO UPDATE SET name = :fresh,
            restored_us = :now, sends = CASE WHEN billing_deployment.sends > :sends
                THEN billing_deployment.sends ELSE CAST(:sends AS bigint) END""",
        fresh=fresh,
        now=now_us,
        sends=sends,
    )
    await tx.execute("UPDATE billing_lanes SET lease_until_us = 0, fence = fence + 1")
    await tx.execute("UPDATE billing_windows SET flight_version = NULL")


async def found_restored(tx: Tx, fresh: str, now_us: int, *, sends: int) -> bool:
    """Do the same if the database knows of fewer sends; False where another worker was first."""
    if (await deployment(tx, fresh)).sends >= sends:
        return False
    await restored(tx, fresh, now_us, sends=sends)
    return True


async def reconciled(tx: Tx, name: str) -> None:
    """Stripe was asked about every item: sending may go on."""
    await tx.execute(
        "UPDATE billing_deployment SET restored_us = NULL WHERE name = :name", name=name
    )


async def find_at_stripe(tx: Tx, key: WindowKey, meter: str, *, held: int, now_us: int) -> None:
    """Take on a window that only Stripe knows: we say nothing for it, so it is sent as nothing."""
    await tx.execute(
        """INSERT INTO billing_windows (tenant, item, hour, period, meter, value, version,
            sent_value, sent_version, dead_version, tries, due_us, settled_us)
        VALUES (:tenant, :item, :hour, :period, :meter, 0, 1, :held, 0, 0, 0, :now, 0)
        ON CONFLICT (tenant, item, hour, period) DO NOTHING""",
        meter=meter,
        held=held,
        now=now_us,
        **key._asdict(),
    )
