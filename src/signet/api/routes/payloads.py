"""`DELETE /v1/payloads/{cid}`: the content goes, its proof stands."""

from __future__ import annotations

from typing import assert_never

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.api.visits import visit_of
from signet.core.ids import RECEIPT_HASH
from signet.core.tenant import Principal, Scope
from signet.gateway.privacy import Erased, Erasure, UnderWay


def operations(erasure: Erasure) -> list[Operation]:
    """Return the operation of this file."""

    async def erase(request: Request, principal: Principal) -> Response:
        cid = request.path_params["cid"]
        if not RECEIPT_HASH.fullmatch(cid):
            return problem_response("parameter_invalid", "a CID is sha256:<64 hex digits>")
        found = await erasure.erase(principal, cid, visit_of(request).origin)
        match found:
            case None:
                return problem_response("not_found", "no such payload")
            case UnderWay():
                detail = "an exchange with this payload has not ended; ask again when it has"
                return problem_response("payload_in_use", detail, retry_after_s=5.0)
            case Erased(receipts=receipts, erased=erased):
                document = {"cid": cid, "receipts": receipts, "erased": erased}
                return Response(orjson.dumps(document), media_type="application/json")
            case _:
                assert_never(found)

    return [
        Secured(
            method="DELETE",
            path="/v1/payloads/{cid}",
            name="erase_payload",
            summary="Erase a payload, its salt and the answers that carry it; the receipts stand.",
            endpoint=erase,
            scope=Scope.PAYLOADS_ERASE,
            parameters=(
                Parameter(
                    name="cid",
                    place="path",
                    doc="The `cid` of a receipt; another tenant's is not found.",
                    schema=schemas.RECEIPT_HASH,
                    required=True,
                ),
            ),
            answers={
                200: Content(
                    doc="It is erased, now or before. `erased` counts the receipts that had it.",
                    schema=schemas.ERASED,
                )
            },
            problems=("parameter_invalid", "not_found", "payload_in_use", "not_acknowledged"),
        )
    ]
