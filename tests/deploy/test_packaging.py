"""What ships the gateway fits it: files, settings, paths, users, and the time a stop may take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.docs import ROOT
from tests.guides.pages import free_port

from signet.cli.exits import Exit
from signet.settings import Settings, declared_settings

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text("utf-8"))
UNIT = DEPLOY / "systemd" / "signet.service"
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes" / "signet.yaml").read_text("utf-8")))
SHIPPED = [path for path in DEPLOY.rglob("*") if path.is_file()]
MOST_AFTER_DRAIN_S = 15.0
USER = 10001


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_only_settings_that_exist(path: Path) -> None:
    """A setting that is renamed is renamed here, or the gateway would start without it."""
    names = {declared.name for declared in declared_settings()}
    for name in re.findall(r"\bSP_[A-Z0-9_]+", path.read_text("utf-8")):
        assert name.removesuffix("_FILE") in names


def test_the_image_is_made_of_what_is_there() -> None:
    """Each file that is copied exists and is let through to the build."""
    ignored = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    copied = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    for source in (s for sources in copied for s in sources if not s.startswith("--from")):
        if not source.startswith("/"):
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    assert "*" in ignored


def test_the_image_is_nobodys() -> None:
    """The process is not root, owns its data, and hears SIGTERM itself."""
    assert f"USER {USER}:{USER}" in DOCKERFILE
    assert re.search(r'^ENTRYPOINT \["signet"\]$', DOCKERFILE, re.MULTILINE)
    assert DOCKERFILE.index("USER ") < DOCKERFILE.index("ENTRYPOINT")


@pytest.mark.parametrize("status", [200, 503, None])
def test_the_health_check(status: int | None) -> None:
    """It passes for a gateway that answers 200, and for nothing else."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status or 0)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    found = re.search(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found is not None
    command = [sys.executable, *json.loads(found[1])[1:]]
    if status is None:
        code = subprocess.run(command, env={"SP_PORT": free_port()}, capture_output=True).returncode
        assert code != 0
        return
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            environment = {"SP_PORT": str(server.server_port)}
            done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/healthz"]
    assert (done.returncode == 0) == (status == 200)


def test_compose_hangs_together() -> None:
    """Secrets and volumes are declared, files that are mounted exist, nothing is open to all."""
    for service in COMPOSE["services"].values():
        assert set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "docker" / source).is_file()
            else:
                assert source in COMPOSE["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    gateway = COMPOSE["services"]["gateway"]
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    for value in gateway["environment"].values():
        assert not value.startswith("/run/secrets/") or Path(value).name in gateway["secrets"]


@pytest.mark.parametrize("misspelt", [False, True])
def test_compose_would_take_it(tmp_path: Path, misspelt: bool) -> None:
    """The file holds to the Compose Specification's schema, and a misspelt field would not."""
    path = tmp_path / "compose.yaml"
    text = (DEPLOY / "docker" / "compose.yaml").read_text("utf-8")
    path.write_text(text.replace("stop_grace_period", "stop_grace_time") if misspelt else text)
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode == 0) != misspelt, done.stdout + done.stderr
    assert ("stop_grace_time" in done.stdout) == misspelt


def test_a_stop_has_time_to_drain() -> None:
    """Whoever stops the gateway waits longer than it drains, or it would be killed."""
    least = Settings().server.drain_s + MOST_AFTER_DRAIN_S
    unit = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert unit is not None
    assert int(unit[1]) >= least
    assert int(COMPOSE["services"]["gateway"]["stop_grace_period"].removesuffix("s")) >= least
    assert pod()["terminationGracePeriodSeconds"] >= least


@pytest.mark.parametrize("misspelt", [False, True])
def test_systemd_can_read_the_unit(tmp_path: Path, misspelt: bool) -> None:
    """systemd knows every directive, and would say so of one that it does not know."""
    text = UNIT.read_text("utf-8").replace("/opt/signet/bin/signet", sys.executable)
    said = systemd_analyze(
        tmp_path,
        text.replace("NoNewPrivileges", "NoNewPrivilege") if misspelt else text,
        "verify",
    )
    unknown = [line for line in said.splitlines() if "Unknown" in line]
    assert len(unknown) == misspelt


def test_systemd_finds_little_left_open(tmp_path: Path) -> None:
    """Its own review gives at most 2.0 of 10, where 0 is the least exposed."""
    systemd_analyze(
        tmp_path, UNIT.read_text("utf-8"), "security", "--offline=true", "--threshold=20"
    )


def test_the_unit_is_restarted_only_where_that_helps() -> None:
    """Settings that cannot be used end it for good; a database that is away does not."""
    text = UNIT.read_text("utf-8")
    prevented = re.search(r"^RestartPreventExitStatus=(.*)$", text, re.MULTILINE)
    assert prevented is not None
    assert {int(code) for code in prevented[1].split()} == {Exit.USAGE, Exit.SETTINGS}
    assert re.search(r"^StartLimitIntervalSec=0$", text, re.MULTILINE)


def systemd_analyze(directory: Path, unit: str, *arguments: str) -> str:
    """What systemd says of a unit; a test without it is skipped."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("needs systemd-analyze (Debian: apt install systemd)")
    path = directory / "signet.service"
    path.write_text(unit)
    done = subprocess.run(
        [tool, *arguments, path], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def pod() -> dict[str, Any]:
    """The pod of the deployment."""
    (deployment,) = (one for one in MANIFESTS if one["kind"] == "Deployment")
    return deployment["spec"]["template"]["spec"]


def selectors() -> Iterator[dict[str, str]]:
    """What each object selects pods by."""
    for one in MANIFESTS:
        spec = one.get("spec", {})
        found = spec.get("podSelector") or spec.get("selector")
        if found:
            yield found.get("matchLabels", found)


def test_kubernetes_objects_belong_together() -> None:
    """Every selector finds the pods; probes, ports, mounts and users fit the gateway."""
    (labels,) = (
        one["spec"]["template"]["metadata"]["labels"]
        for one in MANIFESTS
        if one["kind"] == "Deployment"
    )
    assert [selected for selected in selectors() if selected != labels] == []
    assert len(list(selectors())) == 4
    (container,) = pod()["containers"]
    assert pod()["securityContext"]["runAsUser"] == USER
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod()["volumes"]}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda one: one["kind"])
def test_kubernetes_would_take_it(manifest: dict[str, Any], version: str) -> None:
    """Each object holds to its schema of the oldest and the newest Kubernetes that we name."""
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_kubernetes_would_not_take_anything() -> None:
    """A field that is misspelt is an error."""
    (deployment,) = (one for one in MANIFESTS if one["kind"] == "Deployment")
    misspelt = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelt, "1.37", strict=True)
