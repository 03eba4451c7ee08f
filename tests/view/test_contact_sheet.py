"""Contact sheets: one tile a scan, what hides the room left out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import scene_of
from PIL import Image
from rooms_fake import room

from o2s.view.contact_sheet import TEXT, TILE, draw_contact_sheet


def test_one_tile_a_scan_in_rows(tmp_path: Path) -> None:
    fake = room(3, ceiling=True)
    scenes = [(scene_of(fake.points, fake.colors), f"room {i}") for i in range(5)]
    for suffix in (".png", ".jpg"):
        path = tmp_path / f"a sheet{suffix}"
        draw_contact_sheet(scenes, path, columns=3)
        with Image.open(path) as image:
            assert image.size == (3 * TILE[0], 2 * (TILE[1] + TEXT))
    first = (tmp_path / "a sheet.png").read_bytes()
    draw_contact_sheet(scenes, tmp_path / "a sheet.png", columns=3)
    assert (tmp_path / "a sheet.png").read_bytes() == first


def test_surfaces_that_face_away_are_not_drawn(tmp_path: Path) -> None:
    """A red floor under a blue ceiling: with normals into the room only the floor is seen."""
    rng = np.random.default_rng(0)
    floor = np.c_[rng.uniform(0, 4, (4000, 2)), np.zeros(4000)]
    points = torch.from_numpy(np.concatenate([floor, floor + np.array([0, 0, 2.5])])).float()
    colors = torch.zeros(8000, 3)
    colors[:4000, 0] = colors[4000:, 2] = 1
    normals = torch.zeros(8000, 3)
    normals[:4000, 2], normals[4000:, 2] = 1, -1
    scene = replace(scene_of(points, colors), normals=normals)
    draw_contact_sheet([(scene, "")], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    assert ((pixels[:, 0] > 150) & (pixels[:, 1] < 60)).sum() > 5000
    assert not ((pixels[:, 2] > 150) & (pixels[:, 0] < 60)).any()


def test_no_scans_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no scans to draw"):
        draw_contact_sheet([], tmp_path / "sheet.png")
