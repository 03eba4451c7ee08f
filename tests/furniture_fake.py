"""Furniture libraries made of boxes: .sh3f files, Debian packages, folders with a table."""

import io
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from o2s.datasets.furniture import FurnitureLibrary
from o2s.datasets.furniture_catalogues import CATALOGUE

MATERIALS = """
newmtl front
Kd 1 0 0
newmtl top
Kd 0 1 0
newmtl right
Kd 0 0 1
newmtl rest
Kd 0.5 0.5 0.5
"""
CORNERS = [(x, y, z) for x in (0, 2) for y in (0, 1) for z in (0, 3)]
SIDES = {"front": (2, 4, 8, 6), "top": (3, 4, 8, 7), "right": (5, 6, 8, 7), "rest": (1, 2, 4, 3)}
HEAD = {"name": "Test", "version": "2", "license": "CC-BY", "provider": "example.org"}


def box(corners: Sequence[Sequence[float]] = CORNERS, materials: str = "box.mtl") -> str:
    """Four sides of a box with y up; its front, towards +z, is red, its top green, its +x blue."""
    lines = [f"mtllib {materials}", *("v {} {} {}".format(*corner) for corner in corners)]
    lines += ["v 90 90 90"]  # belongs to no face
    for name, side in SIDES.items():
        lines += [f"usemtl {name}", "f " + " ".join(map(str, side))]
    return "\n".join(lines) + "\n"


def numbered_box(number: int) -> bytes:
    return box().encode() + b"# %d\n" % number


def item(name: str, model: str, **more: str) -> dict[str, str]:
    sizes = {"width": "80", "depth": "60", "height": "90"}
    return {"id": f"Test#{Path(model).stem}", "name": name, "model": model} | sizes | more


def catalogue(items: Sequence[Mapping[str, str]], head: Mapping[str, str] = HEAD) -> bytes:
    lines = ["# a catalogue", *(f"{key}={value}" for key, value in head.items())]
    for number, values in enumerate(items, 1):
        lines += [f"{key}#{number}={value}" for key, value in values.items()]
    return "\n".join(lines).encode("latin-1")


def write_sh3f(
    path: Path, items: Sequence[Mapping[str, str]], files: Mapping[str, bytes | str]
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(CATALOGUE, catalogue(items))
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_deb(path: Path, content: Mapping[str, bytes], mode: str = "w:xz") -> Path:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(f"./usr/share/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        "data.tar.xz": packed.getvalue(),
    }
    return write_ar(path, members)


def write_ar(path: Path, members: Mapping[str, bytes]) -> Path:
    data = b"!<arch>\n"
    for name, content in members.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


def write_library(path: Path) -> Path:
    items = [
        item("Office  chair", "/a/chair.obj", creator="Ann", elevation="5"),
        item("Fridge", "/b/fridge.obj", creator="Bob", license="CC0", modelRotation=TURN),
        item("Man", "/c/man.obj", category="Characters"),
        item("Something", "/c/thing.obj"),
    ]
    files = {
        "a/chair.obj": box(),
        "a/box.mtl": MATERIALS,
        "b/fridge.obj": box([(x, -z, y) for x, y, z in CORNERS]),
        "b/box.mtl": MATERIALS,
    }
    return write_sh3f(path, items, files)


TURN = "1 0 0 0 0 1 0 -1 0"  # of a model with z up


def assert_one_line(error: Exception, *parts: object) -> None:
    text = str(error)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


def png(colors: Sequence[Sequence[Sequence[int]]]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.array(colors, np.uint8)).save(data, "png")
    return data.getvalue()


def write_many(path: Path, names: Mapping[str, Sequence[int]]) -> FurnitureLibrary:
    """A library with one model a number under each name."""
    items = [item(n, f"/{n}{i}.obj") for n, numbers in names.items() for i in numbers]
    files = {f"{n}{i}.obj": numbered_box(i) for n, numbers in names.items() for i in numbers}
    return FurnitureLibrary.open(write_sh3f(path, items, files))


def write_table(folder: Path, rows: Sequence[str], files: Mapping[str, str | bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "furniture.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


COLUMNS = "file,name,class,creator,licence"
