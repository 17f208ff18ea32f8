"""The composition root: what a start makes, shares and refuses."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.inprocess import invoice, open_app, signing_key

from signet.app import StartRefused, open_gateway
from signet.core.registry import RegistryInvalid
from signet.receipts.keys import SigningKey
from signet.settings import Settings, read_settings
from signet.storage.errors import StorageUnavailable

pytestmark = pytest.mark.anyio


def _settings(directory: Path, **environ: str) -> Settings:
    return read_settings({"SP_DATA_DIR": str(directory), **environ}).settings


class TestStart:
    """What keeps a gateway from starting."""

    @pytest.mark.parametrize(
        ("environ", "named"),
        [
            ({"SP_HEL_ALLOWLIST": "https://"}, "SP_HEL_ALLOWLIST"),
            ({"SP_HEL_ALLOWLIST": "*.com."}, "SP_HEL_ALLOWLIST"),
            ({"SP_API_KEYS": '{"k":{"tenant":"a","allowlist":["a b"]}}'}, "SP_API_KEYS"),
            ({"SP_API_KEYS": '{"k":{"tenant":"a","key_allowlist":[{"port":1}]}}'}, "SP_API_KEYS"),
            ({"SP_EGRESS_PRIVATE_NETWORKS": "10.0.0.1/8"}, "SP_EGRESS_PRIVATE_NETWORKS"),
            ({"SP_EGRESS_PRIVATE_NETWORKS": "everything"}, "SP_EGRESS_PRIVATE_NETWORKS"),
            ({"SP_EGRESS_PRIVATE_NETWORKS": "127.0.0.0/8"}, "SP_EGRESS_PRIVATE_NETWORKS"),
            ({"SP_EGRESS_PRIVATE_NETWORKS": "169.254.0.0/16"}, "SP_EGRESS_PRIVATE_NETWORKS"),
            ({"SP_EGRESS_NAT64_PREFIXES": "10.0.0.0/8"}, "SP_EGRESS_NAT64_PREFIXES"),
            ({"SP_RESERVED_CONFIG": "/nonexistent/reserved.json"}, "SP_RESERVED_CONFIG"),
        ],
    )
    async def test_settings_that_cannot_work_are_refused(
        self, tmp_path: Path, environ: dict[str, str], named: str
    ) -> None:
        """The fault names the variable to mend, and nothing is left open."""
        with pytest.raises(StartRefused) as caught:
            async with open_gateway(_settings(tmp_path, **environ)):
                pass
        assert [fault.pointer for fault in caught.value.faults] == [named]

    async def test_a_registry_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        """The message names the setting."""
        with pytest.raises(StartRefused, match="SP_REGISTRY_DIR"):
            async with open_gateway(_settings(tmp_path, SP_REGISTRY_DIR="/nonexistent/types")):
                pass

    async def test_a_faulty_registry_is_refused(self, tmp_path: Path) -> None:
        """Every fault of the operator's documents comes at once."""
        directory = tmp_path / "types"
        directory.mkdir()
        (directory / "bad.v1.schema.json").write_text("{")
        (directory / "worse.schema.json").write_text("{}")
        with pytest.raises(RegistryInvalid) as caught:
            async with open_gateway(_settings(tmp_path, SP_REGISTRY_DIR=str(directory))):
                pass
        assert len(caught.value.faults) == 2

    async def test_a_database_that_cannot_be_opened_is_refused(self, tmp_path: Path) -> None:
        """A directory where the file should be is an error of storage."""
        (tmp_path / "signet.db").mkdir()
        with pytest.raises(StorageUnavailable):
            async with open_gateway(_settings(tmp_path)):
                pass

    async def test_what_fails_inside_comes_out_as_it_is(self, tmp_path: Path) -> None:
        """An error of the block is neither wrapped nor lost, and the gateway closes."""
        with pytest.raises(ZeroDivisionError):
            async with open_gateway(_settings(tmp_path)):
                raise ZeroDivisionError
        async with asyncio.timeout(240), open_gateway(_settings(tmp_path)):
            pass


class TestGateway:
    """A gateway that is up."""

    async def test_its_database_is_where_the_settings_say(self, tmp_path: Path) -> None:
        """`SP_DB_PATH` moves the file; the key stays in the data directory."""
        path = tmp_path / "elsewhere" / "log.db"
        async with open_app(tmp_path / "data", SP_DB_PATH=str(path)) as gateway:
            assert (await gateway.exchange(invoice())).status == 200
        assert path.exists()
        assert not (tmp_path / "data" / "signet.db").exists()

    async def test_two_gateways_share_one_file(self, tmp_path: Path) -> None:
        """Two processes' worth of gateways on one file write one chain."""
        async with open_app(tmp_path) as one, open_app(tmp_path) as other:
            for index in range(4):
                reply = await (one, other)[index % 2].exchange(
                    invoice(trace_id="t"), key=f"k-{index}"
                )
                assert reply.json["receipt"]["hop"] == index + 1
            assert len(await other.verified("t")) == 4

    async def test_the_next_key_is_published_beside_the_one_that_signs(
        self, tmp_path: Path
    ) -> None:
        """It stands by, with its webhook key, and signs nothing yet."""
        following = SigningKey.generate()
        async with open_app(tmp_path, SP_NEXT_PRIVATE_KEY_B64=following.seed_b64) as app_:
            published = (await app_.get("/.well-known/jwks.json", api_key=None)).json
            receipts = {key["kid"] for key in published["keys"] if key["use"] == "sig"}
            assert receipts == {app_.gateway.key.kid, following.kid}
            assert len(published["keys"]) == 4
            assert app_.gateway.key.kid == signing_key().kid
            app_.trusted(await app_.exchange(invoice()))

    async def test_another_key_than_the_one_that_signs(self, tmp_path: Path) -> None:
        """It does not start, and does not publish what was set by mistake."""
        async with open_app(tmp_path):
            pass
        seed = SigningKey.generate().seed_b64
        with pytest.raises(StartRefused, match=signing_key().kid):
            async with open_app(tmp_path, SP_PRIVATE_KEY_B64=seed):
                pass
        async with open_app(tmp_path) as app_:
            published = (await app_.get("/.well-known/jwks.json", api_key=None)).json
            assert len(published["keys"]) == 2

    async def test_the_alias_is_published_too(self, tmp_path: Path) -> None:
        """`SP_KID` is a second name for the key."""
        async with open_app(tmp_path, SP_KID="my-key") as app_:
            published = (await app_.get("/.well-known/jwks.json", api_key=None)).json
        assert "my-key" in json.dumps(published)
