"""What validation and mapping cost, next to the libraries one would otherwise use.

Run `python -m bench.mapping`. Every figure is a median of several rounds taken in turns, so that
ratios hold even while the machine is busy with something else.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from typing import cast

import jmespath
import jsonschema
from jsonata import Jsonata

from signet import types
from signet.core.registry import Registry, Route
from signet.core.schema import Schema
from signet.core.toolcalls import with_parsed
from signet.core.transform import Fields
from signet.core.units import to_minor
from signet.providers.jsonata import Evaluated, JSONataPool
from signet.receipts.canonical import Json, canonicalize, parse

_ROUNDS = 15

ARGUMENTS = (
    '{"invoice_id":"INV-2026-0042","amount":1234.50,"currency":"USD",'
    '"customer_name":"Acme Corporation","description":"Consulting services, October"}'
)
INVOICE: Json = {
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "create_invoice", "arguments": ARGUMENTS},
        }
    ]
}
JSONATA = """{"Document": {"Invoice": {
    "Id": tool_calls[0].function.arguments.invoice_id,
    "TotalMinor": tool_calls[0].function.arguments.amount * 100,
    "Currency": tool_calls[0].function.arguments.currency,
    "Party": {"Name": tool_calls[0].function.arguments.customer_name},
    "Note": tool_calls[0].function.arguments.description}}}"""

ORDER_SCHEMA = parse("""{
    "type": "object", "required": ["id", "customer", "lines"], "additionalProperties": false,
    "properties": {
        "id": {"type": "string", "pattern": "^[A-Z0-9-]+$"},
        "customer": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 140}, "email": {"type": "string"}}},
        "lines": {"type": "array", "maxItems": 100, "items": {
            "type": "object", "required": ["sku", "quantity", "price"], "properties": {
                "sku": {"type": "string", "maxLength": 32},
                "quantity": {"type": "integer", "minimum": 1},
                "price": {"type": "string", "pattern": "^[0-9]+(\\\\.[0-9]{1,2})?$"}}}}}}""")
ORDER: Json = {
    "id": "ORDER-2026-000042",
    "customer": {"name": "Acme Corporation", "email": "orders@acme.example"},
    "lines": [{"sku": f"ARTICLE-{n:05}", "quantity": n + 1, "price": "19.90"} for n in range(16)],
}


def measure(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median microseconds of each job, rounds interleaved."""
    counts: dict[str, int] = {}
    for name, job in jobs.items():
        started = time.perf_counter()
        job()
        counts[name] = max(1, int(0.01 / (time.perf_counter() - started + 1e-7)))
    rounds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(_ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            for _ in range(counts[name]):
                job()
            rounds[name].append((time.perf_counter() - started) / counts[name] * 1e6)
    return {name: statistics.median(times) for name, times in rounds.items()}


def show(title: str, results: dict[str, float]) -> None:
    """One table; the first row is the measure of the others."""
    base = next(iter(results.values()))
    print(f"\n{title}")
    for name, micros in results.items():
        print(f"  {name:<58} {micros:9.1f} µs  {micros / base:7.2f} x")


def main() -> None:
    """Print all tables."""
    registry = Registry.build(types.documents())
    route = cast("Route", registry.lookup("openai.tooluse.invoice.v1", "invoice.iso20022.v1"))
    assert route.mapping is not None
    fields = cast("Fields", route.mapping.body)
    parsed = with_parsed(INVOICE, {t.pointer: parse(t.text) for t in route.embedded_texts(INVOICE)})
    plain = cast("Json", jsonschema_value(parsed))

    base = "tool_calls[0].function.arguments"
    names = ("invoice_id", "amount", "currency", "customer_name", "description")
    searches = [jmespath.compile(f"{base}.{name}") for name in names]
    program = Jsonata(JSONATA)
    show(
        "Mapping the invoice (6 fields)",
        measure(
            {
                "fields form": lambda: fields.apply(parsed),
                "jmespath, the same 5 expressions, nothing built": lambda: [
                    cast("object", search.search(parsed)) for search in searches
                ],
                "jsonata-python in this process (unsafe, inexact)": lambda: program.evaluate(plain),
            }
        ),
    )
    show(
        "The other pure stages of the invoice",
        measure(
            {
                "look up the route": lambda: registry.lookup(
                    "openai.tooluse.invoice.v1", "invoice.iso20022.v1"
                ),
                "validate the input": lambda: route.schema_in.faults(INVOICE),
                "find the embedded text": lambda: route.embedded_texts(INVOICE),
                "put the parsed value back": lambda: with_parsed(
                    INVOICE, {"/tool_calls/0/function/arguments": None}
                ),
                "check the arguments": lambda: route.argument_faults(parsed),
                "minor units of one amount": lambda: to_minor("1234.50", "USD"),
            }
        ),
    )

    schema = Schema.compile("order.v1", ORDER_SCHEMA)
    reference = jsonschema.Draft202012Validator(jsonschema_value(ORDER_SCHEMA))
    assert schema.faults(ORDER) == ()
    size = len(canonicalize(ORDER))
    show(
        f"Validating an order of {size} bytes",
        measure(
            {
                "signet.core.schema": lambda: schema.faults(ORDER),
                "jsonschema (pure Python)": lambda: reference.is_valid(ORDER),
            }
        ),
    )
    asyncio.run(worker(canonicalize(parsed)))


def jsonschema_value(value: Json) -> object:
    """The document with plain Python numbers, for libraries that do not know Decimal."""
    import json

    return json.loads(canonicalize(value))


async def worker(text: bytes) -> None:
    """The same mapping as JSONata, in a process of its own for each evaluation."""
    async with JSONataPool(size=2) as pool:
        times: list[float] = []
        for _ in range(100):
            started = time.perf_counter()
            assert isinstance(await pool.run(JSONATA, text), Evaluated)
            times.append((time.perf_counter() - started) * 1e6)
        alone = statistics.median(times)

        async def some() -> None:
            for _ in range(100):
                await pool.run(JSONATA, text, timeout_s=10)

        started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(some())
        elapsed = time.perf_counter() - started
    print("\nJSONata in the worker (a fork for each evaluation)")
    print(f"  one after the other, median {alone / 1000:.1f} ms")
    print(f"  four at a time, two children: {400 / elapsed:.0f} evaluations a second")


if __name__ == "__main__":
    main()
