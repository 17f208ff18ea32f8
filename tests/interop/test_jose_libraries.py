"""Four JOSE libraries that we did not write verify what we sign."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import joserfc.jwk
import joserfc.jws
import jwcrypto.jwk
import jwcrypto.jws
import jwt
import pytest
from tests.unit.receipts.samples import KEY, OTHER_KEY, chain, export, loaded

from signet.receipts.canonical import canonicalize
from signet.receipts.keys import Algorithm, KeySet, PublicKey, SigningKey, detach
from signet.receipts.receipt import RECEIPT_TYP

HERE = Path(__file__).parent
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


def published(key: SigningKey) -> str:
    """The key set as a client gets it: another key first, an alias, and a known life."""
    public = PublicKey(raw=key.public.raw, alias="main", not_before_s=1, expires_s=2**33)
    return json.dumps(KeySet.of([OTHER_KEY.public, public]).jwks())


def by_joserfc(jwks: str, jws: str) -> bytes:
    """joserfc, by the key set."""
    keys = joserfc.jwk.KeySet.import_key_set(json.loads(jwks))
    return joserfc.jws.deserialize_compact(jws, keys, algorithms=["EdDSA", "Ed25519"]).payload


def by_pyjwt(jwks: str, jws: str) -> bytes:
    """PyJWT, by the kid in the header; it knows no other name than EdDSA."""
    keys = jwt.PyJWKSet.from_json(jwks)
    key = keys[jwt.get_unverified_header(jws)["kid"]]
    return jwt.PyJWS().decode(jws, key.key, algorithms=["EdDSA"])


def by_jwcrypto(jwks: str, jws: str) -> bytes:
    """jwcrypto, by the key set."""
    token = jwcrypto.jws.JWS()
    token.allowed_algs = ["EdDSA", "Ed25519"]
    token.deserialize(jws)
    token.verify(jwcrypto.jwk.JWKSet.from_json(jwks))
    return token.payload


PYTHON_LIBRARIES = {"joserfc": by_joserfc, "PyJWT": by_pyjwt, "jwcrypto": by_jwcrypto}


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # joserfc recommends RFC 9864's name
@pytest.mark.parametrize("library", PYTHON_LIBRARIES)
class TestPython:
    """joserfc, PyJWT and jwcrypto."""

    def test_verifies_receipts(self, library: str) -> None:
        """Every receipt's JWS verifies against the published key set and carries the receipt."""
        verify = PYTHON_LIBRARIES[library]
        for receipt in chain(2):
            assert verify(published(KEY), receipt.jws) == receipt.canonical

    def test_rejects_another_signature(self, library: str) -> None:
        """And it does check: one character changed is an error there."""
        jws = chain(1)[0].jws
        changed = jws[:-5] + ("A" if jws[-5] != "A" else "B") + jws[-4:]
        with pytest.raises(Exception, match=r"(?i)signature|No working key"):
            PYTHON_LIBRARIES[library](published(KEY), changed)


@pytest.mark.parametrize("verify", [by_joserfc, by_jwcrypto])
def test_the_new_name_of_the_algorithm(verify: Callable[[str, str], bytes]) -> None:
    """Libraries that know RFC 9864 verify `Ed25519` with the same published key."""
    key = SigningKey.from_b64(KEY.seed_b64, alg="Ed25519")
    receipt = chain(1, key)[0]
    try:
        assert verify(published(key), receipt.jws) == receipt.canonical
    except jwcrypto.jws.InvalidJWSSignature:
        pytest.skip("this release does not know the name yet")


@pytest.fixture(scope="module")
def node() -> str:
    """The Node interpreter, if it and the module are here; in CI they must be."""
    found = shutil.which("node")
    if found is None or not (HERE / "node_modules" / "jose").is_dir():
        message = "npm jose is absent: install Node, then `npm ci` in tests/interop"
        if IN_CI:
            pytest.fail(message)
        pytest.skip(message)
    return found


class TestNode:
    """npm `jose`."""

    def run(self, node: str, question: object) -> subprocess.CompletedProcess[str]:
        """What the script says to this question."""
        return subprocess.run(
            [node, "verify.mjs"],
            cwd=HERE,
            input=json.dumps(question),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    @pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
    def test_verifies_receipts_and_bundles(self, node: str, alg: Algorithm) -> None:
        """Compact and detached, under both names of the algorithm."""
        key = SigningKey.from_b64(KEY.seed_b64, alg=alg)
        receipt = chain(1, key)[0]
        bundle = loaded(export([receipt], key))
        signed = {
            name: value
            for name, value in bundle.items()
            if name not in ("chain", "signatures", "bundle_jws")
        }
        text = receipt.canonical.decode()
        tokens = [
            {"jws": receipt.jws},
            {"jws": detach(receipt.jws), "payload": receipt.jws.split(".")[1]},
            {"jws": bundle["bundle_jws"], "payload": encoded(canonicalize(signed))},
        ]
        ran = self.run(node, {"jwks": json.loads(published(key)), "tokens": tokens})
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout) == [text, text, canonicalize(signed).decode()]

    def test_rejects_another_signature(self, node: str) -> None:
        """And it does check."""
        other = OTHER_KEY.jws(b"x", typ=RECEIPT_TYP).split(".")
        jws = ".".join([chain(1)[0].jws.split(".")[0], *other[1:]])
        ran = self.run(node, {"jwks": json.loads(published(KEY)), "tokens": [{"jws": jws}]})
        assert ran.returncode != 0
        assert "signature verification failed" in ran.stderr


def encoded(payload: bytes) -> str:
    """The payload part of a JWS."""
    return KEY.jws(payload, typ="any").split(".")[1]
