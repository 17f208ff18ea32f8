"""What a receipt costs: canonical JSON, parsing, sealing, exporting, verifying.

Every ratio compares figures of one run, taken in turns; each is the best of its short rounds, which
is what other work on the machine disturbs least.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import orjson
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from signet.receipts.bundle import BundleDraft
from signet.receipts.canonical import canonicalize, content_id, parse
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.receipt import SealedReceipt, seal, timestamp
from signet.receipts.verify import verify

ROUNDS = 40


def main() -> None:
    """Print the figures."""
    receipt = members(1, None)
    kilobyte = parse(canonicalize(receipt))
    hundred = parse(canonicalize([members(hop, sha("a")) for hop in range(2, 96)]))
    print("canonical JSON against the package rfc8785 and plain orjson (which is not canonical)")
    for name, value in (("1 KB receipt", kilobyte), ("100 KB", hundred)):
        size = len(canonicalize(value))
        compare(
            f"{name} ({size} bytes)",
            {
                "signet": lambda value=value: canonicalize(value),
                "orjson": lambda value=value: orjson.dumps(value, option=orjson.OPT_SORT_KEYS),
                "rfc8785": lambda value=value: rfc8785.dumps(value),
            },
            to="rfc8785",
        )
    print("strict parsing of a 2 KB exchange against the lax parsers")
    for name, price in (("integers only", 12), ("with decimals", 12.5)):
        text = json.dumps(exchange(price)).encode()
        compare(
            f"{name} ({len(text)} bytes)",
            {
                "signet": lambda text=text: parse(text),
                "orjson": lambda text=text: orjson.loads(text),
                "json": lambda text=text: json.loads(text),
            },
            to="json",
        )
    sealing(receipt)
    exporting()


def sealing(receipt: dict[str, Any]) -> None:
    """One receipt against one bare signature."""
    key = SigningKey.generate()
    payload = parse(json.dumps(exchange(12)))
    canonical = seal(receipt, key).canonical

    def whole() -> None:
        content_id(canonicalize(payload))
        seal(receipt, key)

    print("one receipt: payload and receipt canonicalised, hashed, signed")
    theirs = Ed25519PrivateKey.generate()
    compare(
        "against a bare Ed25519 signature by cryptography",
        {
            "receipt": whole,
            "seal alone": lambda: seal(receipt, key),
            "our signing": lambda: key.sign(canonical),
            "bare": lambda: theirs.sign(canonical),
        },
        to="bare",
    )


def exporting() -> None:
    """A chain of ten thousand, written and verified."""
    key = SigningKey.generate()
    chain: list[SealedReceipt] = []
    for hop in range(1, 10_001):
        chain.append(seal(members(hop, chain[-1].receipt_hash if chain else None), key))
    keys = KeySet.of([key.public])
    begun = time.perf_counter()
    draft = BundleDraft(trace_id="bench", exported_at=timestamp(1_700_000_000_000_000))
    for receipt in chain:
        draft.add_receipt(receipt.canonical)
    for receipt in chain:
        draft.add_signature(receipt.jws)
    bundle = draft.seal(key, jwks=keys.jwks())
    body = b"".join(bundle.chunks([r.canonical for r in chain], [r.jws for r in chain]))
    written = time.perf_counter()
    verify(body, jwks=keys)
    verified = time.perf_counter()
    print(f"a chain of {len(chain)} receipts, {len(body) / 1e6:.1f} MB")
    print(f"  export, both passes   {(written - begun) / len(chain) * 1e6:8.1f} µs per receipt")
    print(f"  verify                {(verified - written) / len(chain) * 1e6:8.1f} µs per receipt")


def compare(title: str, work: dict[str, Callable[[], object]], *, to: str) -> None:
    """Time the callables in turns and print the best and their ratios to one of them."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        for name, call in work.items():
            times[name].append(per_call(call))
    best = {name: min(found) for name, found in times.items()}
    print(f"  {title}")
    for name, taken in best.items():
        ratio = best[to] / taken
        against = f"{ratio:6.1f} x as fast as {to}" if ratio >= 1 else f"{1 / ratio:6.2f} x {to}"
        print(f"    {name:12} {taken * 1e6:9.1f} µs   {'' if name == to else against}")


def per_call(call: Callable[[], object]) -> float:
    """Seconds per call, over some milliseconds."""
    calls = 0
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < 0.01:
        call()
        calls += 1
    return spent / calls


def exchange(price: float) -> dict[str, Any]:
    """An exchange's body of about 2 KB, with arguments as embedded text."""
    arguments = {"invoice_id": "INV-1", "amount": 1200, "price": price, "currency": "EUR"}
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "create_invoice", "arguments": json.dumps(arguments)},
        "customer": {"name": "ACME GmbH", "tags": ["a", "b"], "active": True, "price": price},
    }
    return {
        "payload_type": "openai.tooluse.invoice.v1",
        "target_type": "invoice.iso20022.v1",
        "trace_id": "bench",
        "payload": {"tool_calls": [call] * 7},
    }


def members(hop: int, previous: str | None) -> dict[str, Any]:
    """The members of a receipt of about 1 KB."""
    return {
        "v": 1,
        "iss": "https://signet.example",
        "trace_id": "bench",
        "hop": hop,
        "prev_receipt_hash": previous,
        "ts": timestamp(1_700_000_000_000_000 + hop),
        "tenant": "acme",
        "kind": "exchange",
        "outcome": "allowed",
        "reason": "ok",
        "cid": sha("b"),
        "request_cid": sha("c"),
        "canon_profile": "nfc+jcs",
        "unicode": "14.0.0",
        "algo": "sha256",
        "payload_type": "openai.tooluse.invoice.v1",
        "target_type": "invoice.iso20022.v1",
        "schema_in": sha("d"),
        "schema_out": sha("e"),
        "map": sha("f"),
        "policy": {"engine": "HEL", "allowed": True, "reason": "ok", "policy_hash": sha("0")},
        "fu_tokens": 0,
        "vex_units": 1,
        "idempotency_key_hash": "1" * 64,
        "nonce": "2" * 32,
    }


def sha(digit: str) -> str:
    """A well-formed hash text."""
    return "sha256:" + digit * 64


if __name__ == "__main__":
    main()
