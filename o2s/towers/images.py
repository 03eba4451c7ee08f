"""What image towers share: images to numbers, in portions, to unit vectors.

    PIL image -> RGB, on white where it is transparent
              -> short side `resize`, or both sides where `resize` has two numbers
              -> the middle `crop`                            [3, H, W]
              -> (value / 255 - mean) / std
    tower     -> portions of images -> network -> length 1    [M, D]

Images are prepared with PIL alone, so that no tower needs torchvision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from PIL import Image
from torch import Tensor

Triple = tuple[float, float, float]
PORTION = 8  # images through a network at once: more only needs more memory

# What most towers were trained with (ImageNet's channels, github.com/pytorch/vision).
IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImagePreparation:
    """Sizes in pixels, height before width; `mean` and `std` of values from 0 to 1.

    `resize` with one number is the length of the short side, with two numbers both sides,
    whatever the shape of the image; None leaves the size. `crop` of None cuts nothing. What an
    image lacks of `crop` is black.
    """

    resize: tuple[int, ...] | None
    crop: tuple[int, int] | None
    mean: Triple
    std: Triple
    resample: Image.Resampling = Image.Resampling.BICUBIC

    def __call__(self, images: Sequence[Image.Image]) -> Float32[Tensor, "M 3 H W"]:
        """Images of any size and mode, side by side. At least one."""
        return torch.stack([self._one(image) for image in images])

    def _one(self, image: Image.Image) -> Float32[Tensor, "3 H W"]:
        image = in_rgb(image)
        if self.resize is not None:
            image = image.resize(self._size(image), self.resample)
        if self.crop is not None:
            height, width = self.crop
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        values = torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1) / 255
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (values - mean[:, None, None]) / std[:, None, None]

    def _size(self, image: Image.Image) -> tuple[int, int]:
        """The width and height to resize to."""
        if self.resize is not None and len(self.resize) == 2:
            return self.resize[1], self.resize[0]
        side = self.resize[0] if self.resize else min(image.size)
        short, long = sorted(image.size)
        longer = int(side * long / short)
        return (side, longer) if image.width <= image.height else (longer, side)


@dataclass(frozen=True)
class PreparedImageTower:
    """A network with its preparation: images to unit vectors on the CPU.

    `encode` takes pixels on `device` and gives `width` numbers an image, of any length.
    """

    name: str
    width: int
    prepare: Callable[[Sequence[Image.Image]], Float32[Tensor, "M 3 H W"]]
    encode: Callable[[Float32[Tensor, "M 3 H W"]], Float[Tensor, "M D"]]
    device: torch.device

    def __call__(self, images: Sequence[Image.Image]) -> Float32[Tensor, "M D"]:
        """Unit vectors, the same alone and in a batch."""
        return F.normalize(self.embed(images), dim=-1)

    @torch.no_grad()
    def embed(self, images: Sequence[Image.Image]) -> Float32[Tensor, "M D"]:
        """What the network says, before it is brought to length 1."""
        found: list[Float32[Tensor, "_ D"]] = [torch.zeros(0, self.width)]
        for start in range(0, len(images), PORTION):
            pixels = self.prepare(images[start : start + PORTION]).to(self.device)
            found.append(self.encode(pixels).float().cpu())
        return torch.cat(found)


def in_rgb(image: Image.Image) -> Image.Image:
    """An image in RGB; what is transparent in it becomes white, as in a render without ground."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, "white")
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")
