"""Every statement that touches a tenant's rows names the tenant itself, or says why it need not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Final

from tests.architecture.source import SRC, modules, texts, tree

MIGRATIONS: Final = SRC / "storage" / "migrations"

_TABLE: Final = re.compile(r"CREATE TABLE (\w+) \((.*?)\n\)", re.DOTALL)
_STATEMENT: Final = re.compile(r"^\s*(WITH|SELECT|UPDATE|DELETE)\b")
_SCOPED: Final = re.compile(
    r"\b(?:\w\.)?tenant\s*(?:=\s*(?::\w+|\?\d*|\w\.tenant)|IN\s*\()|\(\w\.tenant\)|\btenant\s*=\s*k\."
)

EVERYBODY_S: Final = {
    "billing.open_periods": "a worker's: months of all tenants that are over",
    "billing.periods_ended_after": "a worker's: months of all tenants",
    "billing.recent_plans": "a worker's: the plans of all tenants",
    "billing.uncounted": "a worker's: the log of all tenants, by its cursor",
    "chains.heads_page": "the audit of the whole database",
    "chains.log_page": "the audit of the whole database",
    "chains.next_month": "the audit of the whole database",
    "copying._go_on_counting": "the copy of the whole database",
    "exchanges._FREE_IDS": "the next ids of the log",
    "exchanges._STORED": "by receipt ids that the tenant's own idempotency rows have named",
    "idempotency._FORGET": "a worker's: by the receipts that purge_answers has found",
    "idempotency.owners": "a worker's: whose claims may be those of the dead",
    "idempotency.purge_answers": "a worker's: answers of all tenants that are due",
    "outbox.depth": "a metric of all tenants",
    "outbox.due_outlets": "a worker's: what is due for all tenants",
    "outbox.restored": "the operator's: everything that was in flight before a restore",
    "quota.expired": "a worker's: holds of all tenants",
    "quota.held_under": "a worker's: the holds of a dead process's exchange",
    "quota.hold": "by the id of the hold that the same statement's function has just made",
    "quota.purge_settled": "a worker's: holds of all tenants",
    "quota.settle": "by the id of a hold, which nobody outside names",
    "registry.changes": "a worker's: whose documents have changed",
    "retention._ERASED_ANSWERS": "by the receipts that the tenant's own payloads have named",
    "retention._ERASED_PAYLOADS": "by the receipts that the tenant's own payloads have named",
    "retention.next_tenant": "a worker's: each tenant in turn",
    "tenants.all_tenants": "the keyring of all tenants",
    "tenants.end_key": "the administrator's",
    "tenants.find_key": "the administrator's",
    "tenants.keys_in_force": "the keyring of all tenants",
    "tenants.keys_page": "the administrator's list of all keys",
    "tenants.tenants_page": "the administrator's",
    "usage.settled": "how far the log is complete",
    "vitals.read_vitals": "metrics of all tenants",
}
"""Statements that look at more than one tenant, or find a row by what only its tenant knows."""


def test_every_statement_names_its_tenant() -> None:
    """A query about a tenant's rows says whose in its SQL; exceptions are listed with a reason."""
    unscoped = {name for name, text in _statements() if not _SCOPED.search(text)}
    assert unscoped - EVERYBODY_S.keys() == set()
    assert EVERYBODY_S.keys() - unscoped == set()


def test_the_search_finds_them() -> None:
    """The tables are those with a tenant, and there are many statements about them."""
    tables = _owned()
    assert {"receipts", "heads", "payloads", "answers", "api_keys", "audit_entries"} <= tables
    assert not {"signing_keys", "schema_migrations", "keyring"} & tables
    names = {name for name, _ in _statements()}
    assert {"receipts.by_hash", "receipts.chain", "receipts.payload", "usage.totals"} <= names
    assert len(names - EVERYBODY_S.keys()) > 30


def _owned() -> frozenset[str]:
    """The tables whose rows belong to a tenant."""
    return frozenset(
        table
        for path in MIGRATIONS.glob("*.sqlite.sql")
        for table, columns in _TABLE.findall(path.read_text("utf-8"))
        if re.search(r"^\s*tenant TEXT", columns, re.MULTILINE)
    )


def _statements() -> Iterator[tuple[str, str]]:
    """Every statement that reads or changes such rows, with the file and name that it is in."""
    owned = re.compile(rf"\b(?:FROM|JOIN|UPDATE)\s+(?:{'|'.join(sorted(_owned()))})\b")
    for path in modules(SRC / "storage"):
        for node in tree(path).body:
            for text in texts(node):
                if _STATEMENT.match(text) and owned.search(text):
                    yield f"{path.stem}.{_name(node)}", text


def _name(node: ast.stmt) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return type(node).__name__
