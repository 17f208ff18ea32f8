"""What the audit log costs an exchange: the server's CPU with it and without it, in one run.

Run `python -m bench.audit`. Two gateways on SQLite are asked in turns at c=64, and the ratio of
their best rounds is printed: whatever else the machine does only ever makes a round worse.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from bench.exchange import API_KEY, body, served
from bench.load import drive

WHAT: Final = ("exchange", "unaudited")
ROUNDS: Final = 6
SECONDS: Final = 2.0


def main() -> None:
    """Print CPU per exchange and the ratio."""
    request = body()
    cpu_us: dict[str, list[float]] = {what: [] for what in WHAT}
    with ExitStack() as stack:
        servers = {what: stack.enter_context(served(what)) for what in WHAT}
        for what in WHAT:
            drive(servers[what].url, concurrency=64, seconds=1, body=request, api_key=API_KEY)
        for _ in range(ROUNDS):
            for what in WHAT:
                before_s = servers[what].cpu_s
                load = drive(
                    servers[what].url,
                    concurrency=64,
                    seconds=SECONDS,
                    body=request,
                    api_key=API_KEY,
                )
                assert load.errors == 0, f"{what}: {load}"
                cpu_us[what].append((servers[what].cpu_s - before_s) / load.count * 1e6)
    audited, unaudited = (min(cpu_us[what]) for what in WHAT)
    print(f"audit: CPU for each exchange {audited:.0f} us, without the log {unaudited:.0f} us")
    print(f"  the audit log costs {audited / unaudited - 1:.1%} (to reach: with metrics 10 %)")


if __name__ == "__main__":
    main()
