"""The stages of an exchange: each does one thing to the sheet, or says why the exchange ends.

A stage takes the sheet, reads what the stages before it wrote, writes its own part, and returns
None to go on or a `Refusal` to end. Refusals are results, not exceptions: they are receipted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never
from unicodedata import unidata_version

from signet.core.errors import Fault
from signet.core.exchange import Call, PolicyVerdict, Refusal
from signet.core.registry import Entry, Registry, Route, UnknownMapping, UnknownType
from signet.core.toolcalls import with_parsed
from signet.core.transform import Fields, JSONata, Mapped, MappingFailed
from signet.egress import Policy
from signet.gateway.ports import MappingRunner, MappingStopped
from signet.gateway.reading import Broken, Read, read_text, receipted
from signet.receipts.canonical import Json, canonicalize, normalize
from signet.receipts.errors import ReceiptError


@dataclass(slots=True)
class Sheet:
    """The working sheet of one exchange, written from top to bottom."""

    call: Call
    registry: Registry
    """What the tenant could name when the exchange began."""
    payload: Json = None
    """In the tenant's canonical profile."""
    parsed: Json = None
    """The payload with the JSON texts inside it read."""
    route: Route | None = None
    broken: list[Broken] = field(default_factory=list[Broken])
    """The texts inside the payload that nobody could read yet."""
    fu_tokens: int = 0
    result: Json = None
    """The document of the target type."""
    normalized: bytes | None = None
    policy: PolicyVerdict | None = None
    fence: int | None = None
    """That of the claim on the key, once network work has been permitted."""
    forwarded: Mapping[str, Json] | None = None
    members: dict[str, Json] = field(default_factory=dict[str, Json])
    deprecated: tuple[Entry, ...] = ()

    def put(self, read: Read, *, text: str | None) -> None:
        """Put the value of a text in its place, and `text` itself where it was mended."""
        place = read.embedded.pointer
        self.parsed = with_parsed(self.parsed, {place: read.value})
        if text is not None:
            self.payload = with_parsed(self.payload, {place: text})


def sanitise(sheet: Sheet) -> Refusal | None:
    """Bring every string and name of the payload to the tenant's canonical profile."""
    sheet.payload = sheet.call.envelope.payload
    if sheet.call.subject.canon_profile != "nfc+jcs":
        return None
    if sheet.call.is_normal:
        sheet.members["unicode"] = unidata_version
        return None
    try:
        normal = normalize(sheet.payload)
    except ReceiptError as error:
        fault = Fault(pointer=f"/payload{error.pointer}", code=error.code, detail=error.detail)
        detail = "the payload has no one NFC form"
        return Refusal(code="unicode_invalid", detail=detail, faults=(fault,))
    sheet.payload = normal.value
    sheet.members["unicode"] = normal.unicode_version
    if normal.changed:
        sheet.members["nfc_changed"] = list(normal.changed)
    return None


def find_route(sheet: Sheet) -> Refusal | None:
    """Find the two types and the mapping between them."""
    envelope, registry = sheet.call.envelope, sheet.registry
    match registry.lookup(envelope.payload_type, envelope.target_type):
        case UnknownType(name=name):
            return Refusal(code="unknown_type", detail=f"no type {name} is registered")
        case UnknownMapping():
            detail = f"no mapping leads from {envelope.payload_type} to {envelope.target_type}"
            return Refusal(code="unknown_mapping", detail=detail)
        case Route() as route:
            sheet.route = route
            sheet.deprecated = route.deprecated
            if registry.deprecated:
                tool = registry.deprecated_tool(route.payload_type, sheet.payload)
                sheet.deprecated += () if tool is None else (tool,)
    sheet.members["schema_in"] = route.schema_in.cid
    sheet.members["schema_out"] = route.schema_out.cid
    if route.mapping is not None:
        sheet.members["map"] = route.mapping.cid
    return None


def check_input(sheet: Sheet) -> Refusal | None:
    """Hold the payload against its type's schema."""
    faults = _route(sheet).schema_in.faults(sheet.payload)
    if not faults:
        return None
    detail = f"the payload is not a {sheet.call.envelope.payload_type}"
    return Refusal(code="schema_invalid", detail=detail, faults=_under("/payload", faults))


def read_arguments(sheet: Sheet, max_depth: int) -> None:
    """Read the JSON texts inside the payload; what cannot be read is left to the fallback."""
    nfc = sheet.call.subject.canon_profile == "nfc+jcs"
    read: list[Read] = []
    for embedded in _route(sheet).embedded_texts(sheet.payload):
        result = read_text(embedded, max_depth=max_depth, nfc=nfc)
        if isinstance(result, Broken):
            sheet.broken.append(result)
        else:
            read.append(result)
    # All at once: each call copies the arrays on the way, and a hostile one is long.
    sheet.parsed = with_parsed(sheet.payload, {r.embedded.pointer: r.value for r in read})
    mended = {r.embedded.pointer: r.repaired.text for r in read if r.repaired is not None}
    if mended:
        sheet.payload = with_parsed(sheet.payload, mended)
    repaired = receipted(read)
    if repaired is not None:
        sheet.members["repair"] = repaired


def check_arguments(sheet: Sheet) -> Refusal | None:
    """Hold each tool call's arguments against the tool's own schema."""
    faults = _route(sheet).argument_faults(sheet.parsed)
    if not faults:
        return None
    detail = "the arguments do not fit their tool"
    return Refusal(code="arguments_invalid", detail=detail, faults=_under("/payload", faults))


async def map_payload(sheet: Sheet, runner: MappingRunner) -> Refusal | None:
    """Make the document of the target type."""
    route = _route(sheet)
    if route.mapping is None:
        sheet.result = sheet.payload
        return None
    made = route.source(sheet.parsed)
    if isinstance(made, Mapped):
        match route.mapping.body:
            case Fields() as fields if route.mapping.trusted or fields.is_quick(made.value):
                made = fields.apply(made.value)
            case Fields() | JSONata():
                made = await runner.run(route.mapping, made.value)
    match made:
        case Mapped(value=value):
            sheet.result = value
            return None
        case MappingFailed(faults=faults):
            detail = f"the mapping to {route.target_type} does not apply"
            return Refusal(code="mapping_failed", detail=detail, faults=_under("/payload", faults))
        case MappingStopped(detail=detail):
            return Refusal(code="mapping_stopped", detail=detail)
        case _:
            assert_never(made)


def settle(sheet: Sheet) -> Refusal | None:
    """Fix the bytes: what is hashed here is what is stored, answered and forwarded."""
    try:
        sheet.normalized = canonicalize(sheet.result)
        # ASCII, which nearly everything is, is in NFC already.
        if sheet.call.subject.canon_profile == "nfc+jcs" and not sheet.normalized.isascii():
            sheet.result = normalize(sheet.result).value
            sheet.normalized = canonicalize(sheet.result)
    except ReceiptError as error:
        fault = Fault(pointer=f"/normalized{error.pointer}", code=error.code, detail=error.detail)
        detail = "the result has no exact canonical form"
        return Refusal(code="mapping_failed", detail=detail, faults=(fault,))
    return None


def check_output(sheet: Sheet) -> Refusal | None:
    """Hold the result against the target type's schema."""
    route = _route(sheet)
    if route.mapping is None:
        return None
    faults = route.schema_out.faults(sheet.result)
    if not faults:
        return None
    detail = f"the result is not a {route.target_type}"
    return Refusal(code="output_invalid", detail=detail, faults=_under("/normalized", faults))


def decide(sheet: Sheet, policy: Policy) -> Refusal | None:
    """Settle what needs no network: without a forward, the policy in force has nothing against."""
    if sheet.call.envelope.delivery == "queued":
        detail = "delivery must be sync: this gateway keeps no queue"
        return Refusal(code="delivery_unavailable", detail=detail)
    if sheet.call.envelope.forward_url is None:
        sheet.policy = PolicyVerdict(allowed=True, reason="ok", policy_hash=policy.hash)
    return None


def _route(sheet: Sheet) -> Route:
    assert sheet.route is not None, "find_route comes first"
    return sheet.route


def _under(prefix: str, faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Make pointers into the request, or into the answer, of pointers into one document."""
    return tuple(replace(fault, pointer=prefix + fault.pointer) for fault in faults)
