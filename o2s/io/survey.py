"""Files of laser scanners and surveys: .las and .laz (ASPRS) by laspy, .e57 (ASTM) by pye57."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Num

from o2s.errors import InputError, first_line
from o2s.io.cloud import GREY, Cloud, require_content, step_of, unit_colors

_RGB = ("red", "green", "blue")


def read_las(path: Path) -> Cloud:
    """Read the points of a LAS or LAZ file, without those that are marked as withheld.

    Raises:
        InputError: the file is missing or damaged, or laspy is not installed.
    """
    require_content(path)
    laspy = _package(path, "laspy")
    try:
        table = laspy.read(path)
        promised = table.header.point_count
        xyz = np.asarray(table.xyz, np.float64)
        names = set(table.point_format.dimension_names)
        rgb = np.stack([table[name] for name in _RGB], axis=1) if names.issuperset(_RGB) else None
        kept = np.asarray(table["withheld"]) == 0
    except Exception as error:  # laspy raises whatever struct, numpy or its decoder raise
        if "LazBackend" in str(error):
            raise _missing(path, "lazrs") from None
        raise _damaged(path, error) from None
    if len(xyz) < promised:
        raise InputError(
            f"{path}: the header promises {promised} points, the file holds {len(xyz)}"
        )
    return Cloud(xyz, _colors(rgb)).select(kept)


def read_e57(path: Path) -> Cloud:
    """Read the points of all scans of an E57 file in the coordinates that the scans share.

    Scans without colour among others are grey.

    Raises:
        InputError: the file is missing or damaged, or pye57 is not installed.
    """
    require_content(path)
    pye57 = _package(path, "pye57")

    class File(pye57.E57):
        """Colours as numbers of any kind: pye57 takes bytes alone."""

        def make_buffer(self, field_name: str, capacity: int, **kwargs: bool) -> Any:
            if not field_name.startswith("color"):
                return super().make_buffer(field_name, capacity, **kwargs)
            values = np.empty(capacity, np.float64)
            convert = [kwargs.get(name, True) for name in ("do_conversion", "do_scaling")]
            buffer = pye57.libe57.SourceDestBuffer(
                self.image_file, field_name, values, capacity, *convert
            )
            return values, buffer

    try:
        file = File(str(path))
        clouds = [
            _cloud(file.read_scan(number, colors=True, ignore_missing_fields=True))
            for number in range(file.scan_count)
            if file.get_header(number).point_count
        ]
    except Exception as error:  # pye57 raises C++ errors of many kinds
        raise _damaged(path, error) from None
    if not clouds:
        raise InputError(f"{path}: holds no scans; expected at least one")
    rgb = None
    if any(cloud.rgb is not None for cloud in clouds):
        grey = (np.full((len(c), 3), GREY, np.float32) if c.rgb is None else c.rgb for c in clouds)
        rgb = np.concatenate(list(grey))
    xyz = np.concatenate([cloud.xyz for cloud in clouds])
    return Cloud(xyz, rgb, step=max(cloud.step for cloud in clouds))


def _cloud(scan: dict[str, Any]) -> Cloud:
    xyz = np.stack([scan[f"cartesian{axis}"] for axis in "XYZ"], axis=1)
    colors = [scan[name] for name in ("colorRed", "colorGreen", "colorBlue") if name in scan]
    rgb = np.stack(colors, axis=1) if len(colors) == 3 else None
    if rgb is not None and rgb.max(initial=0) > 1:  # whole numbers: bytes, or 16 bits
        rgb = rgb.astype(np.uint16)
    return Cloud(xyz.astype(np.float64), _colors(rgb), step=step_of(xyz))


def _colors(rgb: Num[np.ndarray, "N 3"] | None) -> Float32[np.ndarray, "N 3"] | None:
    """In [0, 1]; none where all are black, as of files that have the columns but no camera."""
    return unit_colors(rgb) if rgb is not None and rgb.any() else None


def _package(path: Path, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise _missing(path, name) from None


def _missing(path: Path, package: str) -> InputError:
    return InputError(f'{path}: is read by {package}, which is missing: pip install "o2s[survey]"')


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: cannot be read ({first_line(error)})")
