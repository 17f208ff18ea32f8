"""Alert rules and dashboard ask for what the gateway tells, and say what their tests expect."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from tests.docs import ROOT

from signet.telemetry.metrics import RENAMED, Metrics
from signet.telemetry.vitals import Vitals

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "signet.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "signet.json"

_SERIES = re.compile(r"\b(signet_[a-z_]+)(?:\{([^}]*)\})?")
_BY = re.compile(r"\bby \(([^)]*)\)")


def series() -> dict[str, set[str]]:
    """The labels of every series that a gateway can show."""
    found: dict[str, set[str]] = {f"signet_{told.name}": set() for told in fields(Vitals)}
    found["signet_database_up"] = set()
    for metric in vars(Metrics()).values():
        if not isinstance(metric, MetricWrapperBase):
            continue
        labels = set(metric._labelnames)
        match metric._type:
            case "counter":
                found[f"{metric._name}_total"] = labels
            case "histogram":
                found |= {f"{metric._name}{end}": labels for end in ("_count", "_sum")}
                found[f"{metric._name}_bucket"] = labels | {"le"}
            case _:
                found[metric._name] = labels
    for old, new in RENAMED.items():
        found |= {f"{old}{end}": found[f"{new}{end}"] for end in ("_count", "_sum", "_bucket")}
    return found


def rules() -> list[dict[str, Any]]:
    """All rules, alerts and records."""
    return [r for g in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for r in g["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression with where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def unknown(expression: str) -> set[str]:
    """What an expression asks for that no gateway ever shows."""
    known = series()
    wrong: set[str] = set()
    labels: set[str] = set()
    for name, matchers in _SERIES.findall(_BY.sub("", expression)):
        if name not in known:
            wrong.add(name)
            continue
        labels |= known[name]
        asked = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        wrong |= {f"{name}{{{label}}}" for label in asked - known[name]}
    by = {name.strip() for names in _BY.findall(expression) for name in names.split(",")}
    return wrong | {f"by ({label})" for label in by - labels if labels}


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_expressions_ask_for_what_there_is(where: str, expression: str) -> None:
    """A renamed metric or label never leaves an alert or a panel that stays empty."""
    assert unknown(expression) == set(), where


def test_the_check_can_fail() -> None:
    """A name, a matcher and a grouping that do not exist are each found."""
    assert unknown("rate(signet_exchanged_total[5m])") == {"signet_exchanged_total"}
    assert unknown('signet_exchanges_total{host="x"}') == {"signet_exchanges_total{host}"}
    assert unknown("sum by (tenant) (signet_exchanges_total)") == {"by (tenant)"}


def test_every_alert_says_what_to_do() -> None:
    """An alert has one of two severities, a sentence of what is wrong and one of what to do."""
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 15
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["action"]


def test_every_alert_is_played() -> None:
    """Prometheus' own tests hear each alert once at least."""
    played = (PROMETHEUS / "signet.rules.test.yml").read_text("utf-8")
    for rule in rules():
        if "alert" in rule:
            assert f'alertname="{rule["alert"]}"' in played


def test_prometheus_plays_the_rules() -> None:
    """A healthy gateway is quiet, and each fault is heard, says Prometheus itself."""
    assert "SUCCESS" in promtool("test", "rules", PROMETHEUS / "signet.rules.test.yml")


def test_prometheus_can_read_the_dashboard(tmp_path: Path) -> None:
    """Every expression of a panel is PromQL."""
    asked = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(expressions())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))
    assert f"SUCCESS: {len(asked)} rules" in promtool("check", "rules", path)


def promtool(*arguments: str | Path) -> str:
    """What promtool prints; a test without it is skipped."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("needs promtool (Debian: apt install prometheus)")
    done = subprocess.run(
        [tool, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
