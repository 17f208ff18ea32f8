"""The shapes of requests and answers, as JSON Schema 2020-12 for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from signet.core import ids
from signet.core.members import or_null, text
from signet.core.registry import DOCUMENT_NAME, REMARK_MEMBERS
from signet.core.tenant import KEY_MEMBERS, TENANT_MEMBERS

Schema = Mapping[str, object]

_HASH: Final[Schema] = {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}
_TRACE: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"}
_TYPE: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
_JWS: Final[Schema] = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]+\\.[A-Za-z0-9_-]*\\.[A-Za-z0-9_-]+$",
}
MONTH: Final[Schema] = {
    "type": "string",
    "description": "1970-01 to 9998-12",
    "pattern": "^(19[7-9][0-9]|[2-8][0-9]{3}|9[0-8][0-9]{2}|99[0-8][0-9]|999[0-8])"
    "-(0[1-9]|1[0-2])$",
}
RECEIPT_HASH: Final = _HASH
TRACE_ID: Final = _TRACE

TRACE_HEADERS: Final = {
    "X-SIGNET-Trace": "The trace that the receipt belongs to.",
    "X-ODIN-Trace": "The same, under its older name.",
    "X-SIGNET-Idempotency-Hit": "`1` when this answer was given before and is replayed.",
    "Deprecation": "Since when a type, tool or mapping in use is deprecated (RFC 9745).",
    "X-SIGNET-Deprecated": "Which ones: names, separated by commas.",
}
EXPORT_HEADERS: Final = {
    f"X-{name}-Response-{part}": doc
    for name in ("SIGNET", "ODIN")
    for part, doc in (
        ("CID", "The bundle's CID."),
        ("Signature", "Ed25519 over the text of the CID, base64."),
        ("KID", "The key that signed."),
    )
} | {"Content-Digest": "SHA-256 of the body (RFC 9530)."}
LIMIT_HEADERS: Final = {
    "Retry-After": "Seconds after which it can be asked again.",
    "RateLimit-Policy": "The caller's rates: `q` at once, back within `w` seconds.",
    "RateLimit": "What is left of each: `r` now, one more in `t` seconds.",
}

ENVELOPE: Final[Schema] = {
    "type": "object",
    "required": ["payload_type", "target_type", "payload"],
    "additionalProperties": False,
    "properties": {
        "payload_type": {**_TYPE, "description": "The type of `payload`."},
        "target_type": {
            **_TYPE,
            "description": "What it is to become; the same as `payload_type` validates only.",
        },
        "payload": {"type": ["object", "array"]},
        "trace_id": {
            "oneOf": [_TRACE, {"type": "null"}],
            "description": "The chain to append to; made by the server when absent.",
        },
        "forward_url": {
            "oneOf": [{"type": "string", "pattern": "^[^\\s]{1,2048}$"}, {"type": "null"}],
            "description": "Where the result is sent, if the egress policy allows it.",
        },
        "expected_prev": {
            "oneOf": [_HASH, {"type": "null"}],
            "description": "The last receipt of the trace as the caller knows it; null: none yet.",
        },
        "delivery": {"enum": ["sync", "queued", None]},
    },
    "examples": [
        {
            "payload_type": "openai.tooluse.invoice.v1",
            "target_type": "invoice.iso20022.v1",
            "payload": {
                "tool_calls": [
                    {
                        "type": "function",
                        "function": {
                            "name": "create_invoice",
                            "arguments": '{"invoice_id":"INV-1","amount":"123.45",'
                            '"currency":"EUR","customer_name":"ACME GmbH"}',
                        },
                    }
                ]
            },
        }
    ],
}

POLICY: Final[Schema] = {
    "type": "object",
    "required": ["engine", "allowed", "reason", "policy_hash"],
    "properties": {
        "engine": {"const": "HEL"},
        "allowed": {"type": "boolean"},
        "reason": {"type": "string"},
        "policy_hash": _HASH,
    },
}

FORWARDED: Final[Schema] = {
    "type": "object",
    "description": "What came of the forward; where no status came, 403, 413 or 599 stands for it.",
    "required": ["status_code", "host", "pinned_ip", "response_size", "outcome"],
    "properties": {
        "status_code": {"type": "integer"},
        "host": {"type": ["string", "null"]},
        "pinned_ip": {"type": ["string", "null"]},
        "response_size": {"type": "integer", "minimum": 0},
        "outcome": {"enum": ["refused", "not_sent", "indeterminate", "responded"]},
        "error": {"type": "string"},
    },
}

RECEIPT: Final[Schema] = {
    "type": "object",
    "required": [
        *("v", "iss", "trace_id", "hop", "prev_receipt_hash", "ts", "tenant", "kind", "outcome"),
        *("reason", "nonce", "receipt_hash"),
    ],
    "properties": {
        "v": {"const": 1},
        "iss": {"type": "string"},
        "trace_id": _TRACE,
        "hop": {"type": "integer", "minimum": 1},
        "prev_receipt_hash": {"oneOf": [_HASH, {"type": "null"}]},
        "ts": {"type": "string", "format": "date-time"},
        "tenant": {"type": "string"},
        "kind": {"enum": ["exchange", "delivery", "resolution", "key"]},
        "outcome": {"enum": ["allowed", "denied", "failed", "unknown"]},
        "reason": {"type": "string"},
        "cid": _HASH,
        "request_cid": _HASH,
        "policy": {"$ref": "#/components/schemas/Policy"},
        "vex_units": {"type": "integer", "minimum": 0},
        "fu_tokens": {"type": "integer", "minimum": 0},
        "receipt_hash": _HASH,
    },
}

_RECEIPT: Final[Schema] = {"$ref": "#/components/schemas/Receipt"}

EXCHANGED: Final[Schema] = {
    "type": "object",
    "required": ["trace_id", "normalized", "policy", "receipt", "receipt_jws"],
    "properties": {
        "trace_id": _TRACE,
        "normalized": {"description": "The document of the target type."},
        "policy": {"$ref": "#/components/schemas/Policy"},
        "receipt": _RECEIPT,
        "receipt_jws": _JWS,
        "forwarded": {"$ref": "#/components/schemas/Forwarded"},
    },
}

STORED: Final[Schema] = {
    "type": "object",
    "required": ["receipt", "receipt_jws", "normalized"],
    "properties": {
        "receipt": _RECEIPT,
        "receipt_jws": _JWS,
        "normalized": {"description": "The payload; null where there is none or it was erased."},
    },
}

CHAIN: Final[Schema] = {
    "type": "object",
    "required": ["trace_id", "chain", "length"],
    "properties": {
        "trace_id": _TRACE,
        "length": {"type": "integer", "minimum": 1, "description": "Receipts in the whole trace."},
        "chain": {"type": "array", "items": _RECEIPT},
    },
}

BUNDLE: Final[Schema] = {
    "type": "object",
    "description": "A whole trace; with `kind` page a part of one, which proves nothing alone.",
    "required": ["trace_id", "chain", "exported_at", "signature", "signatures", "jwks", "kid"],
    "properties": {
        "kind": {"const": "page"},
        "trace_id": _TRACE,
        "chain": {"type": "array", "items": _RECEIPT},
        "from_hop": {"type": "integer", "minimum": 1},
        "head": {
            "type": "object",
            "required": ["hop", "receipt_hash"],
            "properties": {"hop": {"type": "integer", "minimum": 1}, "receipt_hash": _HASH},
        },
        "exported_at": {"type": "string", "format": "date-time"},
        "bundle_cid": _HASH,
        "page_cid": _HASH,
        "signature": {"type": "string"},
        "kid": {"type": "string"},
        "signatures": {"type": "array", "items": _JWS},
        "signatures_previous": {
            "type": "array",
            "items": {"oneOf": [_JWS, {"type": "null"}]},
            "description": "In the log of the keys: by the key before, where a receipt rotates.",
        },
        "signatures_cid": _HASH,
        "jwks": {"$ref": "#/components/schemas/JWKS"},
        "bundle_jws": _JWS,
        "page_jws": _JWS,
    },
    "oneOf": [
        {"required": ["bundle_cid", "bundle_jws"], "properties": {"kind": False}},
        {"required": ["kind", "from_hop", "head", "page_cid", "page_jws"]},
    ],
}

JWKS: Final[Schema] = {
    "type": "object",
    "required": ["keys"],
    "properties": {
        "keys": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kty", "crv", "x", "kid"],
                "properties": {
                    "kty": {"const": "OKP"},
                    "crv": {"const": "Ed25519"},
                    "x": {"type": "string"},
                    "kid": {"type": "string"},
                },
            },
        }
    },
}

_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_COUNT_OR_NONE: Final[Schema] = {"type": ["integer", "null"], "minimum": 0}

USAGE: Final[Schema] = {
    "type": "object",
    "required": ["tenant", "period", "vex", "fu"],
    "properties": {
        "tenant": {"type": "string"},
        "period": {
            "type": "object",
            "required": ["name", "start", "end"],
            "properties": {
                "name": {"type": "string"},
                "start": {"type": "string", "format": "date-time"},
                "end": {"type": "string", "format": "date-time"},
            },
        },
        "vex": {"type": "object", "required": ["units"], "properties": {"units": _COUNT}},
        "fu": {
            "type": "object",
            "required": ["units", "quota"],
            "properties": {
                "units": _COUNT,
                "quota": {
                    "type": "object",
                    "required": ["limit", "used", "reserved", "left"],
                    "properties": {
                        "limit": _COUNT_OR_NONE,
                        "used": _COUNT,
                        "reserved": _COUNT,
                        "left": _COUNT_OR_NONE,
                    },
                },
            },
        },
    },
}

_RATE: Final[Schema] = {
    "type": ["object", "null"],
    "required": ["interval_us", "burst", "left", "next_us"],
    "properties": {
        "interval_us": {"description": "One request more in so many microseconds.", **_COUNT},
        "burst": {"description": "So many may come at once.", **_COUNT},
        "left": {"description": "So many may come now.", **_COUNT},
        "next_us": {"description": "Until one more may come; 0 when none is missing.", **_COUNT},
    },
}
_QUOTA: Final[Schema] = {
    "type": "object",
    "required": ["limit", "used", "left"],
    "properties": {"limit": _COUNT, "used": _COUNT, "left": _COUNT},
}

LIMITS: Final[Schema] = {
    "type": "object",
    "required": ["tenant", "key_id", "rates", "concurrency", "fu", "registry"],
    "properties": {
        "tenant": {"type": "string"},
        "key_id": {"type": "string"},
        "rates": {
            "type": "object",
            "required": ["tenant", "key"],
            "properties": {"tenant": _RATE, "key": _RATE},
        },
        "concurrency": {
            "type": "object",
            "description": "Requests in progress in the process that answers.",
            "required": ["limit", "in_progress"],
            "properties": {"limit": _COUNT_OR_NONE, "in_progress": _COUNT_OR_NONE},
        },
        "fu": {
            "type": "object",
            "description": "Fallback tokens of this month. A key's are counted from its quota on.",
            "required": [
                *("period", "limit", "used", "reserved", "left"),
                *("key_limit", "key_used", "key_reserved", "key_left"),
            ],
            "properties": {
                "period": {"type": "string"},
                "limit": _COUNT_OR_NONE,
                "used": _COUNT,
                "reserved": _COUNT,
                "left": _COUNT_OR_NONE,
                "key_limit": _COUNT_OR_NONE,
                "key_used": _COUNT,
                "key_reserved": _COUNT,
                "key_left": _COUNT_OR_NONE,
            },
        },
        "registry": {
            "type": "object",
            "description": "Types, tools and mappings that the tenant keeps, and may keep.",
            "required": ["documents", "bytes"],
            "properties": {"documents": _QUOTA, "bytes": _QUOTA},
        },
    },
}

STATEMENT: Final[Schema] = {
    "type": "object",
    "required": ["kind", "tenant", "period", "currency", "usage", "lines", "total"],
    "properties": {
        "kind": {"const": "statement"},
        "tenant": {"type": "string"},
        "period": {"type": "string"},
        "revision": {"type": "integer", "minimum": 1},
        "currency": {"type": "string"},
        "usage": {"type": "object", "additionalProperties": _COUNT},
        "lines": {"type": "array", "items": {"type": "object"}},
        "total": {"type": "string", "description": "A decimal amount in `currency`."},
    },
}

STATEMENTS: Final[Schema] = {
    "type": "object",
    "required": ["statements"],
    "properties": {
        "statements": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["period", "revision", "created_us"],
                "properties": {
                    "period": {"type": "string"},
                    "revision": {"type": "integer", "minimum": 1},
                    "created_us": _COUNT,
                },
            },
        }
    },
}

EVENTS: Final[Schema] = {
    "type": "object",
    "required": ["events"],
    "properties": {
        "events": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "kind", "at_us", "data"],
                "properties": {
                    "id": _COUNT,
                    "kind": {"type": "string"},
                    "at_us": _COUNT,
                    "data": {"type": "object"},
                },
            },
        }
    },
}

RELOADED: Final[Schema] = {
    "type": "object",
    "required": ["plans", "changed", "repriced"],
    "properties": {
        "plans": {"type": "object", "additionalProperties": {"type": "string"}},
        "changed": {"type": "array", "items": {"type": "string"}},
        "repriced": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
    },
}

ERASED: Final[Schema] = {
    "type": "object",
    "required": ["cid", "receipts", "erased"],
    "properties": {
        "cid": _HASH,
        "receipts": {"type": "integer", "minimum": 1},
        "erased": {"type": "integer", "minimum": 0},
    },
}
TIMESTAMP: Final[Schema] = {"type": "string", "format": "date-time"}
AUDIT_ENTRY: Final[Schema] = {
    "type": "object",
    "required": [
        *("v", "seq", "ts", "tenant", "actor", "action", "object", "code", "count"),
        *("receipt_hash", "latency_us", "request_id", "address", "before", "after"),
        *("prev_entry_hash", "entry_hash"),
    ],
    "properties": {
        "v": {"const": 1},
        "seq": {"type": "integer", "minimum": 1, "description": "The place in the chain."},
        "ts": TIMESTAMP,
        "tenant": {"type": "string"},
        "actor": {"type": "string", "description": "The id of the key, never the key."},
        "action": {"type": "string"},
        "object": {"type": ["string", "null"]},
        "code": {"type": "string", "description": "`ok`, or the problem's code."},
        "count": {"type": "integer", "minimum": 1, "description": "Equal attempts of a second."},
        "receipt_hash": {"oneOf": [_HASH, {"type": "null"}]},
        "latency_us": {"type": ["integer", "null"], "minimum": 0},
        "request_id": {"type": ["string", "null"]},
        "address": {"type": ["string", "null"]},
        "before": {"description": "The object's state before an administrative change."},
        "after": {"description": "And after it."},
        "prev_entry_hash": {"oneOf": [_HASH, {"type": "null"}]},
        "entry_hash": _HASH,
    },
}
AUDIT: Final[Schema] = {
    "type": "object",
    "required": ["tenant", "entries", "next_after", "head"],
    "properties": {
        "tenant": {"type": "string"},
        "entries": {"type": "array", "items": {"$ref": "#/components/schemas/AuditEntry"}},
        "next_after": {
            "type": ["integer", "null"],
            "description": "Pass it as `after` for the next page; null: there is nothing more.",
        },
        "head": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["seq", "entry_hash"],
                    "properties": {"seq": {"type": "integer"}, "entry_hash": _HASH},
                },
                {"type": "null"},
            ],
            "description": "Where the chain ends now; null: there is no entry yet.",
        },
    },
}

TENANT_ID: Final[Schema] = {"type": "string", "pattern": f"^{ids.TENANT_ID.pattern}$"}
KEY_ID: Final[Schema] = {"type": "string", "pattern": "^(key|env)_[0-9a-f]{16}$"}
_SOURCE: Final[Schema] = {
    "enum": ["settings", "database"],
    "description": "`settings`: SP_API_KEYS describes it, and it is changed there.",
}
_TIME_OR_NONE: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
_KEY_ID_OR_NONE: Final[Schema] = {"oneOf": [KEY_ID, {"type": "null"}]}

TENANT: Final[Schema] = {
    "type": "object",
    "required": ["tenant", "source", "created_at", "changed_at", *TENANT_MEMBERS],
    "properties": {
        "tenant": TENANT_ID,
        "source": _SOURCE,
        "created_at": _TIME_OR_NONE,
        "changed_at": _TIME_OR_NONE,
        **{name: or_null(rule).schema for name, rule in TENANT_MEMBERS.items()},
    },
}

TENANTS: Final[Schema] = {
    "type": "object",
    "required": ["tenants", "next"],
    "properties": {
        "tenants": {"type": "array", "items": TENANT},
        "next": {"type": ["string", "null"]},
    },
}

KEY: Final[Schema] = {
    "type": "object",
    "required": [
        *("key_id", "tenant", "state", "label", "source", "scopes", "created_at", "expires_at"),
        *("revoked_at", "succeeds", "rotated_to", "pepper"),
    ],
    "properties": {
        "key_id": KEY_ID,
        "tenant": {"type": "string"},
        "state": {"enum": ["active", "expired", "revoked"]},
        "label": {"type": "string"},
        "source": _SOURCE,
        "created_at": _TIME_OR_NONE,
        "expires_at": _TIME_OR_NONE,
        "revoked_at": _TIME_OR_NONE,
        "succeeds": {**_KEY_ID_OR_NONE, "description": "The first key of the line."},
        "rotated_to": {**_KEY_ID_OR_NONE, "description": "The next key of the line."},
        "pepper": {
            "type": ["string", "null"],
            "description": "Which pepper the key was hashed with.",
        },
        **{name: rule.schema for name, rule in KEY_MEMBERS.items()},
    },
}

ISSUED: Final[Schema] = {
    "allOf": [KEY],
    "required": ["key"],
    "properties": {
        "key": {"type": "string", "pattern": "^sp_live_[0-9a-f]{16}_[0-9a-f]{64}$"},
    },
}

KEYS: Final[Schema] = {
    "type": "object",
    "required": ["keys", "next"],
    "properties": {
        "keys": {"type": "array", "items": KEY},
        "next": {"type": ["string", "null"]},
    },
}

_KIND: Final[Schema] = {"enum": ["types", "mappings", "tools"]}
REGISTRY_KIND: Final = _KIND
REGISTRY_NAME: Final[Schema] = text("a name", DOCUMENT_NAME).schema

DEPRECATION: Final[Schema] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {name: rule.schema for name, rule in REMARK_MEMBERS.items()},
    "examples": [{"detail": "amounts are strings now", "successor": "acme.order.v2"}],
}

_ENTRY: Final[Schema] = {
    "type": "object",
    "required": ["kind", "name", "cid", "origin", "created", "deprecated", "shadows"],
    "properties": {
        "kind": _KIND,
        "name": {"type": "string"},
        "cid": _HASH,
        "origin": {"enum": ["built_in", "operator", "global", "tenant"]},
        "created": {
            "oneOf": [{"type": "string", "format": "date-time"}, {"type": "null"}],
            "description": "When it was registered; null where it came with the start.",
        },
        "deprecated": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["since", "detail", "successor"],
                    "properties": {
                        "since": {"type": "string", "format": "date-time"},
                        "detail": {"type": ["string", "null"]},
                        "successor": {"type": ["string", "null"]},
                    },
                },
                {"type": "null"},
            ]
        },
        "shadows": {
            "enum": ["built_in", "operator", "global", None],
            "description": "Where a document of the same name came from that this one hides.",
        },
    },
}

REGISTRY_ENTRY: Final[Schema] = {"$ref": "#/components/schemas/RegistryEntry"}

REGISTRY_LIST: Final[Schema] = {
    "type": "object",
    "required": ["documents", "next"],
    "properties": {
        "documents": {"type": "array", "items": REGISTRY_ENTRY},
        "next": {
            "type": ["string", "null"],
            "description": "What to give as `after` for the next page; null at the end.",
        },
    },
}

DRY_RUN: Final[Schema] = {
    "type": "object",
    "required": [
        *("ok", "payload", "arguments", "repair", "normalized", "cid", "policy", "problem"),
        *("schema_in", "schema_out", "map", "deprecated", "fallback", "addresses"),
    ],
    "properties": {
        "ok": {
            "type": "boolean",
            "description": "Whether the exchange would go on to the network,"
            " or be allowed where it asks for no forward.",
        },
        "payload": {"description": "As it would be kept: normalised, with its texts repaired."},
        "arguments": {"description": "The payload with the JSON texts in it read; null before."},
        "repair": {"description": "The edits, as the receipt would list them; null for none."},
        "normalized": {"description": "The document of the target type; null before."},
        "cid": {"oneOf": [_HASH, {"type": "null"}]},
        "schema_in": {"oneOf": [_HASH, {"type": "null"}]},
        "schema_out": {"oneOf": [_HASH, {"type": "null"}]},
        "map": {"oneOf": [_HASH, {"type": "null"}]},
        "policy": {"oneOf": [{"$ref": "#/components/schemas/Policy"}, {"type": "null"}]},
        "problem": {
            "oneOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}],
            "description": "What the exchange would answer, without its receipt.",
        },
        "deprecated": {"type": "array", "items": REGISTRY_ENTRY},
        "fallback": {
            "type": "boolean",
            "description": "Whether a model would be asked to mend what could not be read.",
        },
        "addresses": {
            "enum": ["not_asked", "not_resolved", "judged"],
            "description": "`not_resolved`: the exchange would also judge where the host's name"
            " leads, which a dry run does not look up.",
        },
    },
}

HEALTH: Final[Schema] = {
    "type": "object",
    "required": ["ok", "storage", "version", "ts"],
    "properties": {
        "ok": {"const": True},
        "storage": {"enum": ["sqlite", "postgres"]},
        "version": {"type": "string"},
        "ts": {"type": "string", "format": "date-time"},
    },
}

READY: Final[Schema] = {
    "type": "object",
    "required": ["ready", "components"],
    "properties": {
        "ready": {"type": "boolean"},
        "components": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}

PROBLEM: Final[Schema] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "reason": {"type": "string"},
        "retry": {"enum": ["same_key", "new_key_safe", "never_blind"]},
        "trace_id": _TRACE,
        "faults": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {
                    "pointer": {"type": "string"},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                    "expected": {"type": "string"},
                    "got": {"type": "string"},
                },
            },
        },
        "receipt": _RECEIPT,
        "receipt_jws": _JWS,
        "forwarded": {"$ref": "#/components/schemas/Forwarded"},
    },
}

COMPONENTS: Final[Schema] = {
    "AuditEntry": AUDIT_ENTRY,
    "Policy": POLICY,
    "Forwarded": FORWARDED,
    "Receipt": RECEIPT,
    "JWKS": JWKS,
    "Problem": PROBLEM,
    "RegistryEntry": _ENTRY,
}
