"""Small 3DETRs for the tests, and what a network would say that finds given boxes."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from o2s.detect.detr3d import Detr3d, Detr3dConfig, Detr3dOutputs
from o2s.detect.detr3d_loss import encode_headings
from o2s.scene import Scene

TINY = Detr3dConfig(
    classes=["chair", "table"],
    num_points=300,
    tokens=32,
    queries=8,
    width=16,
    heads=2,
    encoder_hidden=8,
    decoder_layers=2,
    decoder_hidden=8,
    score=0.0,
)


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=atol)


def cloud(seed: int, count: int, scale: float = 1.0) -> Tensor:
    return torch.rand(1, count, 3, generator=torch.Generator().manual_seed(seed)) * scale


def scene(seed: int = 0, count: int = 400, colored: bool = True, away: float = 0.0) -> Scene:
    points = cloud(seed, count)[0] * torch.tensor([3.0, 2.0, 1.5]) + away
    colors = cloud(seed + 1, count)[0] if colored else None
    return Scene("made up", points, colors, None, torch.eye(4, dtype=torch.float64))


def tiny(seed: int = 0, **changes: object) -> Detr3d:
    """A small one with wide boxes, of which no parameter or statistic is where it starts."""
    torch.manual_seed(seed)
    detector = Detr3d(replace(TINY, **changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, value in detector.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.1 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            scale = 0.5 if value.ndim == 1 else 1.5 * value[0].numel() ** -0.5
            scale *= 0.3 if name.startswith("mlp_heads") and "layers.8" in name else 1
            value.add_(torch.randn(value.shape, generator=generator), alpha=scale)
    with torch.no_grad():
        detector.get_parameter("mlp_heads.size_head.layers.8.bias").fill_(1.0)
    return detector


def outputs_of(boxes: Tensor, logits: Tensor, bins: int = 1) -> Detr3dOutputs:
    """What a network would have said that finds these boxes [Q, 7] in a cloud of 4 m."""
    part, rest = encode_headings(boxes[:, 6], bins)
    chosen = functional.one_hot(part, bins).float()
    sizes, headings = boxes[None, :, 3:6], boxes[None, :, 6]
    fields = sizes / 4, 20 * chosen[None], (chosen * rest[:, None])[None]
    low, high = torch.full((1, 3), -2.0), torch.full((1, 3), 2.0)
    return Detr3dOutputs(logits[None], boxes[None, :, :3], sizes, headings, *fields, low, high)


def plain_farthest(points: Tensor, count: int) -> list[int]:
    allowed = [i for i, p in enumerate(points) if float((p**2).sum()) > 1e-3]
    chosen = [0]
    while len(chosen) < count:
        far = ((points[:, None] - points[chosen]) ** 2).sum(dim=2).amin(dim=1)
        chosen.append(max(allowed, key=lambda i: (float(far[i]), -i)))
    return chosen
