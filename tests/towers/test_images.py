"""Images to numbers with PIL alone, against transformers' own and a plain crop."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

from o2s.towers.images import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImagePreparation,
    PreparedImageTower,
    in_rgb,
)

SHAPES = [(40, 40), (64, 30), (31, 77), (20, 20), (9, 200), (41, 40)]


def picture(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize("width, height", SHAPES)
def test_the_middle_is_what_clip_of_transformers_takes(width: int, height: int):
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=24)
    mean, std = (tuple(map(float, values)) for values in (theirs.image_mean, theirs.image_std))
    ours = ImagePreparation((32,), (24, 24), mean, std)
    expected = theirs(picture(width, height), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours([picture(width, height)]), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("width, height", SHAPES)
def test_both_sides_are_resized_as_siglip_of_transformers_does(width: int, height: int):
    theirs = SiglipImageProcessorPil(size={"height": 16, "width": 24})
    half = (0.5, 0.5, 0.5)
    ours = ImagePreparation((16, 24), None, half, half, Image.Resampling(theirs.resample))
    expected = theirs(picture(width, height), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours([picture(width, height)]), expected, atol=1e-5, rtol=0)


def test_without_resizing_the_middle_is_cut_out_of_the_image():
    image = picture(9, 7)
    ours = ImagePreparation(None, (3, 5), IMAGENET_MEAN, IMAGENET_STD)([image])
    values = np.asarray(image)[2:5, 2:7].astype(np.float32) / 255
    expected = (values - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    torch.testing.assert_close(ours[0], torch.from_numpy(expected.transpose(2, 0, 1)))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "I", "F"])
def test_other_modes_count_as_their_rgb(mode: str):
    image = picture(8, 8).convert(mode)
    assert in_rgb(image).tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
def test_what_is_transparent_is_white(mode: str):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.putpixel((1, 2), (0, 0, 0, 255))
    layered = image.convert(mode)
    if mode == "P":
        layered = Image.new("P", (4, 4), 0)
        layered.putpalette([9, 9, 9, 0, 0, 0])
        layered.putpixel((1, 2), 1)
        layered.info["transparency"] = 0
    found = np.asarray(in_rgb(layered))
    assert found[2, 1].max() == 0
    assert (np.delete(found.reshape(16, 3), 9, axis=0) == 255).all()


def test_half_transparent_is_half_white():
    found = in_rgb(Image.new("RGBA", (2, 2), (200, 0, 100, 51))).getpixel((0, 0))
    assert isinstance(found, tuple)
    expected = [255 * 0.8 + value * 0.2 for value in (200, 0, 100)]
    assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True))


def test_a_tower_gives_unit_vectors_the_same_in_any_portion():
    projection = torch.randn(3 * 4 * 4, 5)
    tower = PreparedImageTower(
        "toy",
        5,
        ImagePreparation((4,), (4, 4), IMAGENET_MEAN, IMAGENET_STD),
        lambda pixels: pixels.flatten(1) @ projection,
        torch.device("cpu"),
    )
    images = [picture(5 + i, 6) for i in range(19)]
    together = tower(images)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(19))
    torch.testing.assert_close(together, torch.cat([tower([image]) for image in images]))
    raw = tower.embed(images)
    torch.testing.assert_close(raw / raw.norm(dim=1, keepdim=True), together)
    assert tower([]).shape == (0, 5)
