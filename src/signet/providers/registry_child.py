"""The process in which documents of strangers are compiled first. Started by
`signet.providers.registry_check`; not an API.

It reads one JSON array from standard input, `[types, documents]`, compiles the documents as every
process of the gateway will, and writes what is wrong with each. Memory and processor time are
bounded by the kernel; a document that overruns them ends this process and not the gateway.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
from collections.abc import Sequence
from typing import cast

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata

from signet.core.errors import Fault
from signet.core.registry import EntryKey, Hosted, Kind, Origin, Registry
from signet.core.transform import JSONata
from signet.receipts.canonical import parse

CPU_S = 5
MEMORY_BYTES = 192 << 20
"""Beside what the interpreter and its modules take: for all documents of one owner together."""


def faults_of(
    types: Sequence[str], documents: Sequence[tuple[str, str, str]]
) -> dict[EntryKey, tuple[Fault, ...]]:
    """Compile documents (kind, name, text) of one owner, who can name `types` besides."""
    hosted = [
        Hosted(kind=Kind(kind), name=name, document=parse(text), created_us=0)
        for kind, name, text in documents
    ]
    empty = Registry(schemas={}, tools={}, mappings={})
    registry, found = empty.with_hosted(hosted, Origin.TENANT, types=types)
    faults = dict(found)
    for mapping in registry.mappings.values():
        if isinstance(mapping.body, JSONata):
            wrong = _expression_fault(mapping.body.expression)
            if wrong is not None:
                faults[Kind.MAPPING, mapping.name] = (wrong,)
    return faults


def _expression_fault(expression: str) -> Fault | None:
    try:
        Jsonata(expression)
    except RecursionError:
        detail = "The expression is nested too deeply."
    except JException as error:
        detail = f"{error.error} at {error.location}: {error}"[:300]
    except Exception as error:  # the parser raises whatever Python raises on what it did not expect
        detail = f"{type(error).__name__}: {error}"[:300]
    else:
        return None
    return Fault(pointer="/jsonata", code="mapping_invalid", detail=detail)


def _confine() -> None:
    with open("/proc/self/statm", "rb") as statistics:
        taken = int(statistics.read().split()[0]) * resource.getpagesize()
    bound = taken + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Counted from the start of the process, and in whole seconds.
    cpu_s = int(used.ru_utime + used.ru_stime) + 1 + CPU_S
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def main() -> None:
    """Answer the one question."""
    Jsonata("1")  # what it imports on its first use, it imports now
    asked = sys.stdin.buffer.read()
    _confine()
    types, documents = cast(
        "tuple[list[str], list[tuple[str, str, str]]]", tuple(json.loads(asked))
    )
    told = [
        [*key, [dataclasses.asdict(fault) for fault in faults]]
        for key, faults in faults_of(types, documents).items()
    ]
    sys.stdout.buffer.write(json.dumps(told).encode())


if __name__ == "__main__":
    main()
