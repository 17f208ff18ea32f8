"""Chapter: the receipts leave the gateway, and are checked where it cannot be reached."""

from __future__ import annotations

import json
from pathlib import Path

from signet.cli.demo.exact import TRACE
from signet.cli.demo.stage import Stage
from signet.cli.exits import CommandFailed, Exit


def tell(stage: Stage) -> None:
    """Export, verify offline, flip one byte, and let the verifier name the place."""
    page = stage.page
    page.heading("4  Proof that needs no trust in the gateway")
    page.say(
        "The trace is exported and verified by a command that opens no socket. The only thing"
        " taken on trust is the name of the signing key, pinned on the command line."
    )
    page.command(f"signet export {TRACE} --out bundle.json")
    page.output(stage.run("export", TRACE, "--out", "bundle.json"))
    page.command(f"signet verify bundle.json --trust {stage.kid}")
    page.output(stage.run("verify", "bundle.json", "--trust", stage.kid), "good")

    hop, before, after = _forge(stage.directory / "bundle.json", stage.directory / "forged.json")
    page.gap()
    page.say(f"One byte is changed, in the CID of receipt {hop}: ...{before} becomes ...{after}")
    page.command(f"signet verify forged.json --trust {stage.kid}")
    page.output(
        stage.run("verify", "forged.json", "--trust", stage.kid, expect=Exit.FAILED), "refused"
    )


def _forge(bundle: Path, forged: Path) -> tuple[int, str, str]:
    """Change the last digit of the second receipt's CID; return the hop and both endings."""
    text = bundle.read_text()
    receipt = json.loads(text)["chain"][1]
    cid: str = receipt["cid"]
    changed = cid[:-1] + ("0" if cid[-1] != "0" else "1")
    start = text.index(receipt["receipt_hash"]) - 1
    # Members stand in the order of their names: the CID precedes the receipt's own hash.
    place = text.rindex(cid, 0, start)
    if place < 0:
        raise CommandFailed("the bundle does not hold the receipt that was exported")
    forged.write_text(text[:place] + changed + text[place + len(cid) :])
    return receipt["hop"], cid[-12:], changed[-12:]
