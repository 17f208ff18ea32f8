"""What a deployment of the original server brings along works, and its receipts can be checked."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.inprocess import SEED, invoice
from tests.live import live, reply

PAGE = Path(__file__).parents[2] / "docs" / "guide" / "migration.md"
KEYS = '{"prod_key":{"tenant":"acme","fallback_enabled":true,"fu_monthly_limit":50000}}'
RESERVED = {
    "acme": {
        "vex_reserved": 1000000,
        "fu_reserved": 5000000,
        "vex_overage_tiers": [{"threshold": 100000, "price_per_unit": 0.008}],
    }
}


@pytest.mark.parametrize("prefix", ["SP_", "AB_"])
def test_its_environment_starts_the_gateway(tmp_path: Path, prefix: str) -> None:
    """Keys, lists, reserve, seed and kid, under their present and their older names."""
    reserved = tmp_path / "reserved.json"
    reserved.write_text(json.dumps(RESERVED))
    settings = {
        "API_KEYS": KEYS,
        "HEL_ALLOWLIST": "api.openai.com,webhook.example.com",
        "DB_PATH": str(tmp_path / "old-name.db"),
        "RESERVED_CONFIG": str(reserved),
        "PRIVATE_KEY_B64": SEED,
        "KID": "signet-prod-key-1",
    }
    given = {f"{prefix}{name}": value for name, value in settings.items()}
    ours = {"SP_API_KEYS": "", "SP_PRIVATE_KEY_B64": ""}  # the defaults of these tests
    with live(tmp_path, **(ours | given)) as gateway:
        headers = {
            "X-ODIN-API-Key": "prod_key",
            "X-ODIN-Idempotency-Key": "one",
            "Content-Type": "application/json",
        }
        with closing(gateway.connect()) as connection:
            connection.request("POST", "/v1/exchange", json.dumps(invoice()), headers)
            assert reply(connection).status == 200
        kids = [key["kid"] for key in gateway.get("/.well-known/jwks.json").json["keys"]]
    assert "signet-prod-key-1" in kids
    assert (tmp_path / "old-name.db").exists()


@pytest.mark.parametrize("change", [None, "amount"])
def test_an_old_receipt_is_checked_as_the_page_says(tmp_path: Path, change: str | None) -> None:
    """Its code holds for what the old software hashed, and fails for anything else."""
    receipt: dict[str, object] = {
        "trace_id": "t",
        "hop": 1,
        "amount": 1e16,
        "name": "Müller & Söhne",
        "prev_receipt_hash": None,
    }
    text = json.dumps(receipt, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    receipt["receipt_hash"] = f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
    if change is not None:
        receipt[change] = 2
    (tmp_path / "old-receipt.json").write_text(json.dumps(receipt), encoding="utf-8")
    found = re.search(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    done = subprocess.run(
        [sys.executable, "-c", found[1]], cwd=tmp_path, capture_output=True, check=False
    )
    assert (done.returncode == 0) is (change is None), done.stderr
