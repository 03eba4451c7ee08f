"""LAS, LAZ and E57 as laser scanners and surveys write them."""

import sys
from pathlib import Path

import numpy as np
import pytest

from o2s.errors import InputError
from o2s.io import read_scene
from o2s.io.survey import read_e57, read_las

laspy = pytest.importorskip("laspy")
pye57 = pytest.importorskip("pye57")

RNG = np.random.default_rng(0)
XYZ = RNG.uniform(0, 4, (500, 3))
RGB = RNG.integers(0, 256, (500, 3))
MAP = np.array([689_000.0, 5_338_000.0, 520.0])  # metres, as surveys have them


def las(path: Path, *, colors: int | None = 257, withheld: int = 0) -> Path:
    """A file of 500 points; colours are multiplied by `colors`."""
    header = laspy.LasHeader(point_format=6 if colors is None else 7, version="1.4")
    header.offsets, header.scales = MAP, np.full(3, 0.001)
    table = laspy.LasData(header)
    table.x, table.y, table.z = (XYZ + MAP).T
    if colors is not None:
        table.red, table.green, table.blue = (RGB * colors).T
    flags = np.zeros(500, np.uint8)
    flags[:withheld] = 1
    table.withheld = flags
    table.write(str(path))
    return path


def e57(path: Path, *scans: dict[str, np.ndarray], shift: tuple[float, float, float] = (0, 0, 0)):
    with pye57.E57(str(path), mode="w") as file:
        for scan in scans:
            file.write_scan_raw(
                scan, translation=np.array(shift), rotation=np.array([1, 0, 0, 0.0])
            )
    return path


def scan_of(points: np.ndarray, rgb: np.ndarray | None = None) -> dict[str, np.ndarray]:
    scan = {f"cartesian{axis}": points[:, i].copy() for i, axis in enumerate("XYZ")}
    if rgb is not None:
        for i, name in enumerate(("Red", "Green", "Blue")):
            scan[f"color{name}"] = rgb[:, i].astype(np.uint8)
    return scan


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("factor", [1, 257])  # bytes in 16 bits, and all 16 bits
def test_las_keeps_millimetres_and_colours(suffix: str, factor: int, tmp_path: Path) -> None:
    cloud = read_las(las(tmp_path / f"scan{suffix}", colors=factor))
    np.testing.assert_allclose(cloud.xyz, XYZ + MAP, atol=0.0006)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb, RGB / 255, atol=1e-4)


def test_las_without_colours_and_with_withheld_points(tmp_path: Path) -> None:
    cloud = read_las(las(tmp_path / "scan.las", colors=None, withheld=20))
    assert cloud.rgb is None
    np.testing.assert_allclose(cloud.xyz, XYZ[20:] + MAP, atol=0.0006)


def test_e57_joins_its_scans_where_they_stood(tmp_path: Path) -> None:
    path = e57(
        tmp_path / "scan.e57", scan_of(XYZ[:300], RGB[:300]), scan_of(XYZ[300:]), shift=(1, 2, 3)
    )
    cloud = read_e57(path)
    np.testing.assert_allclose(cloud.xyz, XYZ + np.array([1, 2, 3]), atol=1e-6)
    assert cloud.rgb is not None
    np.testing.assert_allclose(cloud.rgb[:300], RGB[:300] / 255, atol=1e-4)
    assert (cloud.rgb[300:] == 0.5).all()
    assert read_e57(e57(tmp_path / "bare.e57", scan_of(XYZ))).rgb is None


def test_columns_of_colour_without_a_camera_are_none(tmp_path: Path) -> None:
    assert read_las(las(tmp_path / "scan.las", colors=0)).rgb is None
    black = np.zeros((500, 3), int)
    assert read_e57(e57(tmp_path / "scan.e57", scan_of(XYZ, black))).rgb is None


def test_las_without_a_decoder_for_laz_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = las(tmp_path / "scan.laz")

    def refused(path: Path) -> None:
        raise laspy.LaspyException("No LazBackend selected, cannot decompress data")

    monkeypatch.setattr(laspy, "read", refused)
    with pytest.raises(InputError, match="read by lazrs, which is missing"):
        read_las(path)


def test_las_that_was_cut_between_points_is_refused(tmp_path: Path) -> None:
    path = las(tmp_path / "scan.las")
    with laspy.open(path) as file:
        size, begin = file.header.point_format.size, file.header.offset_to_point_data
    path.write_bytes(path.read_bytes()[: begin + 100 * size])
    with pytest.raises(InputError, match="promises 500 points, the file holds 100"):
        read_las(path)


def test_both_become_scenes(tmp_path: Path) -> None:
    for path in (las(tmp_path / "a.laz"), e57(tmp_path / "b.e57", scan_of(XYZ, RGB))):
        scene = read_scene(path, up="z", unit="m")
        assert scene.points.shape == (500, 3)
        expected = XYZ - XYZ.mean(axis=0)
        np.testing.assert_allclose(scene.points.numpy(), expected, atol=0.002)


@pytest.mark.parametrize("suffix", [".las", ".laz", ".e57"])
def test_mistakes_are_one_line(suffix: str, tmp_path: Path) -> None:
    whole = {".e57": lambda p: e57(p, scan_of(XYZ))}.get(suffix, las)(tmp_path / f"whole{suffix}")
    data = whole.read_bytes()
    for name, content, message in (
        ("empty", b"", "the file is empty"),
        ("text", b"hello, I am a scan" * 30, "cannot be read"),
        ("torn", data[: len(data) // 2], "cannot be read"),
    ):
        path = tmp_path / f"{name}{suffix}"
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            read_scene(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix, package", [(".las", "laspy"), (".e57", "pye57")])
def test_a_missing_package_is_named(
    suffix: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        InputError, match=rf"{package}, which is missing: pip install \"o2s\[survey\]\""
    ):
        read_scene(path)
