"""Prepared scans: what is written is read, and as a scene it is upright and centred."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from o2s.errors import InputError
from o2s.io import read_scene
from o2s.io.labelled import (
    METADATA,
    LabelledScan,
    Objects,
    is_labelled,
    labelled_facts,
    read_labelled,
    write_labelled,
)


def make(seed: int = 0, *, annotated: bool = True, scale: float = 1.0) -> LabelledScan:
    rng = np.random.default_rng(seed)
    turn = np.array([[0.0, -1, 0, 3], [1, 0, 0, -2], [0, 0, 1, 0.5], [0, 0, 0, 1]])
    turn[:3, :3] *= scale
    normals = rng.normal(size=(20, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    objects = Objects(
        ids=np.array([4, 2], np.int32),
        group_ids=np.array([0, 1], np.int32),
        names=("chair", "Stuhl für zwei"),
        boxes=rng.uniform(size=(2, 6)),
        raw_boxes=rng.uniform(size=(2, 6)),
        classes={"nyu40": np.array([5, 5], np.int16)},
    )
    return LabelledScan(
        name="scene 1",
        dataset="scannet",
        split="val",
        xyz=rng.normal(size=(20, 3)).astype(np.float32),
        rgb=rng.integers(0, 256, (20, 3), dtype=np.uint8),
        normals=normals.astype(np.float32),
        alignment=turn,
        segments=np.arange(20, dtype=np.int32) if annotated else None,
        instance=rng.choice([-1, 2, 4], 20).astype(np.int32) if annotated else None,
        classes={"nyu40": np.full(20, 5, np.int16)} if annotated else {},
        objects=objects if annotated else None,
        class_names={"nyu40": ["unannotated", "wall"]} if annotated else {},
    )


def assert_equal(a: object, b: object) -> None:
    for field in dataclasses.fields(a):  # pyright: ignore[reportArgumentType]
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert np.array_equal(left, right), field.name
        elif dataclasses.is_dataclass(left):
            assert_equal(left, right)
        elif isinstance(left, dict):
            assert left.keys() == right.keys()
            assert all(np.array_equal(left[k], right[k]) for k in left), field.name
        else:
            assert left == right, field.name


@pytest.mark.parametrize("annotated", [True, False])
def test_what_is_written_is_read(tmp_path: Path, annotated: bool) -> None:
    scan = make(annotated=annotated)
    path = tmp_path / "a scan.safetensors"
    write_labelled(scan, path, made_from="here", notes=["odd"])
    assert_equal(scan, read_labelled(path))
    facts = labelled_facts(path)
    assert facts is not None
    assert facts["vertices"] == 20
    assert facts["notes"] == ["odd"]
    assert facts["made_from"] == "here"
    first = path.read_bytes()
    write_labelled(make(annotated=annotated), path, made_from="here", notes=["odd"])
    assert path.read_bytes() == first


@pytest.mark.parametrize("scale", [1.0, 0.001])
def test_as_a_scene_it_is_aligned_and_centred(tmp_path: Path, scale: float) -> None:
    scan = make(scale=scale)
    path = tmp_path / "scan.safetensors"
    write_labelled(scan, path, made_from="")
    scene = read_scene(path)
    aligned = torch.from_numpy(scan.aligned_xyz)
    torch.testing.assert_close(
        scene.points.double() + aligned.mean(dim=0), aligned, atol=1e-6, rtol=0
    )
    assert scene.points.mean(dim=0).abs().max() < 1e-5
    world = scene.points.double() + scene.offset
    torch.testing.assert_close(
        world, aligned, atol=1e-6, rtol=0
    )  # where the annotation's boxes are
    homogeneous = torch.cat([torch.from_numpy(scan.xyz).double(), torch.ones(20, 1)], dim=1)
    expected = (homogeneous @ scene.from_file.T)[:, :3]
    torch.testing.assert_close(scene.points.double(), expected, atol=1e-6, rtol=0)
    assert scene.colors is not None
    assert torch.equal(scene.colors, torch.from_numpy(scan.rgb.astype(np.float32) / 255))  # pyright: ignore
    assert scene.normals is not None
    torch.testing.assert_close(scene.normals.norm(dim=1), torch.ones(20))
    turned = torch.from_numpy(scan.normals) @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])  # pyright: ignore
    torch.testing.assert_close(scene.normals, turned)


def test_boxes_and_aligned_vertices_agree_with_a_plain_product() -> None:
    scan = make()
    plain = scan.xyz.astype(np.float64) @ scan.alignment[:3, :3].T + scan.alignment[:3, 3]
    assert scan.aligned_xyz == pytest.approx(plain, abs=1e-12)


def damage(path: Path, **changes: object) -> None:
    """Write the file again with tensors (or, as `metadata`, facts) changed; None removes one."""
    facts = labelled_facts(path)
    assert facts is not None
    tensors = load_file(path)
    for name, value in changes.items():
        if name == "metadata":
            facts |= value  # pyright: ignore
        elif value is None:
            del tensors[name.replace("__", ".")]
        else:
            tensors[name.replace("__", ".")] = np.asarray(value)
    save_file(tensors, path, {METADATA: json.dumps(facts)})


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"xyz": None}, "no 'xyz'"),
        ({"alignment": None}, "no 'alignment'"),
        ({"xyz": np.zeros((0, 3), np.float32)}, "expected a prepared scan"),
        ({"rgb": np.zeros((3, 3), np.uint8)}, r"'rgb' is uint8 of shape \[3, 3\]"),
        ({"instance": np.zeros(20, np.int64)}, "'instance' is int64"),
        ({"object__ids": np.zeros(3, np.int32)}, "do not fit together"),
        ({"object__boxes": None}, "do not fit together"),
        ({"metadata": {"version": 99}}, "version '99' of a prepared scan; expected 1"),
    ],
)
def test_damage_is_one_line(tmp_path: Path, changes: dict, expected: str) -> None:
    path = tmp_path / "scan.safetensors"
    write_labelled(make(), path, made_from="")
    damage(path, **changes)
    with pytest.raises(InputError, match=expected) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    other = tmp_path / "weights.safetensors"
    save_file({"weight": np.zeros(3)}, other)
    assert not is_labelled(other)
    assert labelled_facts(other) is None
    with pytest.raises(InputError, match="not a prepared scan; expected one that `o2s prepare`"):
        read_labelled(other)
    path = tmp_path / "scan.safetensors"
    write_labelled(make(), path, made_from="")
    assert is_labelled(path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-7])
    assert labelled_facts(cut) is None
    with pytest.raises(InputError, match=r"not a whole \.safetensors file"):
        read_labelled(cut)
    with pytest.raises(InputError, match="no such file"):
        read_labelled(tmp_path / "none.safetensors")
