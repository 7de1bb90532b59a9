"""The files for launchers: what can be validated here is."""

import re
from pathlib import Path

import pytest

LAUNCHERS = Path(__file__).parents[2] / "examples" / "launchers"


def test_kubernetes_would_accept_its_file() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    yaml = pytest.importorskip("yaml")
    documents = list(yaml.safe_load_all((LAUNCHERS / "kubernetes.yaml").read_text()))
    assert [each["kind"] for each in documents] == ["Service", "Job"]
    for each in documents:
        validate.validate(each, "1.30", strict=True)


@pytest.mark.parametrize("name", ["kubernetes.yaml", "skypilot.yaml", "slurm_submitit.py"])
def test_scripts_that_launchers_start_exist(name: str) -> None:
    text = (LAUNCHERS / name).read_text()
    scripts = re.findall(r"examples/(?!launchers)[\w/]+\.py", text) + re.findall(r'"(\w+\.py)"', text)
    assert scripts
    assert all((LAUNCHERS.parent / Path(each).name).exists() for each in scripts)
