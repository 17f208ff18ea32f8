"""The command `signet` in a world where some public names lead to loopback.

`python -m tests.guides.signet ARGUMENTS...` is `signet ARGUMENTS...`, whose egress client is built
with the seams below the validation: names, dialler, trust store. No rule is relaxed. The file that
`GUIDE_WORLD` names says which: `{"names": {name: [address]}, "ports": {"address:port": port},
"trust": PEM}`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.egress.stage import LoopbackDialler, StaticNames

import signet.app
import signet.app.gateway
import signet.cli.egress
from signet.app.outside import address_rules
from signet.cli.main import main
from signet.egress import EgressClient, Limits
from signet.settings import Settings


def egress_client(settings: Settings) -> EgressClient:
    """Build the client of the settings over the world's names and places."""
    world = json.loads(Path(os.environ["GUIDE_WORLD"]).read_text("utf-8"))
    dialler = LoopbackDialler()
    for place, port in world["ports"].items():
        address, _, asked = place.rpartition(":")
        dialler.ports[address, int(asked)] = port
    egress = settings.egress
    return EgressClient(
        resolver=StaticNames(world["names"]),
        dialler=dialler,
        trust=world["trust"],
        limits=Limits(deadline_s=egress.forward_s, max_body=egress.max_response_bytes),
        rules=address_rules(settings),
    )


if __name__ == "__main__":
    for module in (signet.app, signet.app.gateway, signet.cli.egress):
        module.egress_client = egress_client  # type: ignore[attr-defined]
    sys.exit(main())
