"""The script that has Infinigen make furniture: all but what Blender does."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_classes import CLASSES

SCRIPT = Path(__file__).parents[2] / "scripts" / "infinigen_furniture.py"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, where Blender and Infinigen are not there."""
    for name in ("bpy", "infinigen", "infinigen.core", "infinigen.core.init"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    maths = SimpleNamespace(FixedSeed=None)
    monkeypatch.setitem(sys.modules, "infinigen.core.util.math", maths)
    for parent, child in (("infinigen", "core"), ("infinigen.core", "init")):
        monkeypatch.setattr(sys.modules[parent], child, sys.modules[f"{parent}.{child}"], False)
    spec = importlib.util.spec_from_file_location("infinigen_furniture", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def slab(module: str, factory: str, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Two triangles, 1 m along x and `seed` + 2 m high; there are no vases."""
    if factory == "VaseFactory":
        raise TimeoutError("not done")
    top = seed + 2.0
    vertices = np.array([[0, 0.3, 0], [1, 0.3, 0], [0, 0.3, top], [1, 0, top]])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    return {"shader_wood": (vertices, faces)}


def run(script: Any, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
    script.main()


def test_its_classes_are_ours(script: Any) -> None:
    assert set(script.FACTORIES) <= set(CLASSES)


def test_runs_that_share_the_work_leave_one_library(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script, "triangles", slab)
    out = tmp_path / "made"
    run(script, monkeypatch, out, "--count", 2, "--part", "0/2")
    first = set(out.glob("*.glb"))
    run(script, monkeypatch, out, "--count", 2, "--part", "1/2")
    assert first < set(out.glob("*.glb"))
    rows = list(csv.DictReader((out / "furniture.csv").read_text().splitlines()))
    assert len(rows) == 2 * (len(script.FACTORIES) - 1)
    assert "VaseFactory 0: TimeoutError" in capsys.readouterr().err
    library = FurnitureLibrary.open(out)
    assert {piece.label for piece in library.pieces} == set(script.FACTORIES) - {"vase"}
    for name, size in (("sofa_001", (0.3, 1.0, 3.0)), ("window_001", (1.0, 0.3, 3.0))):
        piece = next(p for p in library.pieces if p.key.endswith(name))
        assert piece.size == pytest.approx(size, abs=1e-4)
        mesh = library.load(piece)
        np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), size, atol=1e-4)
        assert len(np.unique(mesh.colors, axis=0)) == 1


def test_ceiling_lamps_hang(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(script, "triangles", slab)
    run(script, monkeypatch, tmp_path / "made", "--count", 4)
    lamps = [p for p in FurnitureLibrary.open(tmp_path / "made").pieces if p.label == "lamp"]
    hangs = {p.fine: p.elevation for p in lamps}
    assert hangs["ceiling light"] == hangs["ceiling lamp"] == 2.0
    assert hangs["table lamp"] == 0.0


def test_appliances_have_the_sizes_that_are_sold(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "triangles", slab)
    run(script, monkeypatch, tmp_path / "made", "--count", 2)
    sizes = [p.size for p in FurnitureLibrary.open(tmp_path / "made").pieces if p.label == "stove"]
    assert len(set(sizes)) == 2
    for width, depth, height in sizes:
        assert 0.5 <= width <= 0.92
        assert 0.55 <= depth <= 0.7
        assert 0.88 <= height <= 1.2


def test_pieces_that_are_there_are_left_alone(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "triangles", slab)
    run(script, monkeypatch, tmp_path, "--count", 1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.glb")}
    gone = tmp_path / "sofa_000.glb"
    data = gone.read_bytes()
    gone.unlink()
    run(script, monkeypatch, tmp_path, "--count", 1)
    assert gone.read_bytes() == data
    after = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.glb")}
    assert {p: t for p, t in after.items() if p != gone} == {
        p: t for p, t in before.items() if p != gone
    }
