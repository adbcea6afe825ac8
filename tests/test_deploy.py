"""The deployment files: valid, with settings and options that exist. Whether they run is not tested here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from livedrag.server.__main__ import _parser
from livedrag.server.settings import Settings
from tests.conftest import ROOT

DEPLOY = ROOT / "docs" / "deploy"
FILES = [DEPLOY / "compose.yaml", DEPLOY / "kuberay.yaml"]


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_only_settings_and_options_that_exist_are_used(path: Path) -> None:
    text = path.read_text()
    known = {f"LIVEDRAG_{setting.name.upper()}" for setting in dataclasses.fields(Settings)}
    named = set(re.findall(r"LIVEDRAG_[A-Z_]+", text))
    assert len(named) >= 3
    assert named <= known
    (command,) = re.findall(r"exec (livedrag serve .*)", text)
    arguments = command.replace('"', "").split()[1:]
    _parser().parse_args(arguments)  # exits with an unknown option


def test_compose_has_a_server_and_workers_on_an_internal_network() -> None:
    (compose,) = documents(FILES[0])
    services, networks = compose["services"], compose["networks"]
    assert services["worker"]["deploy"]["replicas"] == 2
    assert networks["cluster"] == {"internal": True}
    assert services["worker"]["networks"] == ["cluster"]
    volumes = {name: {volume.partition(":")[0] for volume in service["volumes"]} for name, service in services.items()}
    assert volumes == {"server": {"data", "checkpoints"}, "worker": {"checkpoints"}}
    for service in services.values():
        assert set(service["secrets"]) <= compose["secrets"].keys()
        assert service["environment"]["RAY_AUTH_MODE"] == "token"


def test_the_manifest_names_its_own_volumes_and_the_pinned_ray() -> None:
    kinds = {document["kind"]: document for document in documents(FILES[1])}
    assert kinds.keys() == {"PersistentVolumeClaim", "RayCluster", "Service", "NetworkPolicy"}
    claims = {
        document["metadata"]["name"] for document in documents(FILES[1]) if document["kind"] == "PersistentVolumeClaim"
    }
    cluster = kinds["RayCluster"]["spec"]
    assert f"ray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    templates = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for template in (group["template"]["spec"] for group in templates):
        volumes = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in template["volumes"]}
        assert set(volumes.values()) <= claims
        for container in template["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    labels = cluster["headGroupSpec"]["template"]["metadata"]["labels"]
    assert kinds["Service"]["spec"]["selector"].items() <= labels.items()
    assert kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == {
        "ray.io/cluster": kinds["RayCluster"]["metadata"]["name"]
    }
