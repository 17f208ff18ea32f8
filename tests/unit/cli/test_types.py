"""`signet types`: the registry of a real gateway from a shell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.live import live

from signet.cli.main import main

KEYS = {
    "ci-key": {"tenant": "acme", "scopes": ["exchange", "registry.write"]},
    "admin-key": {"tenant": "operator", "scopes": ["exchange", "admin"]},
}


def test_from_the_file_to_the_list_and_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Types go before the mapping that needs them; deprecation shows; faults have places."""
    mapping = tmp_path / "a.v1--b.v1.map.json"
    mapping.write_text('{"fields": {"x": "y"}}')
    files = [mapping, *(tmp_path / f"{name}.v1.schema.json" for name in "ab")]
    for file in files[1:]:
        file.write_text('{"type": "object"}')
    bad = tmp_path / "bad.v1.schema.json"
    bad.write_text('{"type": 1}')
    with live(tmp_path, SP_API_KEYS=json.dumps(KEYS)) as gateway:

        def types(*words: str, key: str = "ci-key") -> tuple[int, str]:
            code = main(["types", *words, "--url", gateway.url, "--api-key", key])
            said = capsys.readouterr()
            return code, said.out + said.err

        assert types("add", *map(str, files))[0] == 0
        code, said = types("add", str(bad))
        assert code == 1
        assert "bad.v1.schema.json" in said
        assert "/type" in said
        assert types("deprecate", "types/a.v1", "--successor", "a.v2")[0] == 0
        listed = types("list")[1]
        assert "deprecated, use a.v2" in next(
            line for line in listed.splitlines() if " a.v1 " in line
        )
        assert "a.v1--b.v1" in listed
        assert "built_in" in listed
        assert types("restore", "types/a.v1")[0] == 0
        assert "deprecated" not in types("list")[1]
        assert json.loads(types("show", "mappings/a.v1--b.v1")[1]) == {"fields": {"x": "y"}}
        shared = tmp_path / "shared.v1.schema.json"
        shared.write_text("{}")
        assert types("add", "--everybody", str(shared))[0] == 1
        assert types("add", "--everybody", str(shared), key="admin-key")[0] == 0
        assert "global" in types("list")[1]


@pytest.mark.parametrize(
    "words",
    [
        ["add", "order.json"],
        ["add", "missing.v1.schema.json"],
        ["show", "acme.order.v1"],
        ["show", "types/../x"],
        ["deprecate", "others/a.v1"],
    ],
)
def test_what_is_no_document(words: list[str]) -> None:
    """Said before a gateway is asked."""
    assert main(["types", *words, "--api-key", "k", "--url", "http://127.0.0.1:9"]) == 64
