"""Point-BERT, the region encoder: one feature for the points of each region of interest.

    points [R, P, C] -> farthest point sampling, nearest neighbours   groups [R, G, K, C]
                     -> mini-PointNet over each group                 [R, G, group_width]
                     -> reduce_dim, pos_embed of the group centres    [R, 1 + G, width]
                     -> transformer: x = block(x + position)          [R, 1 + G, width]
                     -> norm, [class token, max over groups]          features [R, 2 * width]
                     -> @ pc_projection                               embedding [R, embedding]

Point-BERT: Yu et al., CVPR 2022 (arXiv 2111.14819). Pretraining, sizes and state-dict keys: ULIP
and ULIP-2, Xue et al., CVPR 2023 and 2024 (github.com/salesforce/ULIP, models/pointbert).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from o2s.ops.linear import Linear, linear
from o2s.ops.neighbours import group, nearest_neighbours
from o2s.ops.sampling import farthest_point_sample


@dataclass(frozen=True)
class PointBertConfig:
    """The size of a Point-BERT; the defaults are those of ULIP-1.

    `channels` is 3 (xyz), 6 (xyz and RGB in [0, 1]) or 7 (those and the region's size, see
    `regions.normalise`). `group_width` is the width of the mini-PointNet's output; its hidden
    layers are a half, one and two times as wide. `skip_near_origin` repeats a quirk of the CUDA
    sampler that the published weights were trained with: group centres within 3.2 cm of the
    origin are never chosen. It makes holes and exists for parity only. `up` is the axis that points
    up in what the weights learned from: regions come with z up and are turned where it is "y", as
    in the sets of ULIP (data/dataset_3d.py, `rotate_point_cloud` turns about y).
    """

    channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    groups: int = 512
    neighbours: int = 32
    group_width: int = 256
    embedding: int = 512
    drop_path: float = 0.1
    skip_near_origin: bool = False
    up: Literal["y", "z"] = "z"

    def __post_init__(self) -> None:
        if self.channels not in (3, 6, 7):
            raise ValueError(
                f"channels is {self.channels}, expected 3 (xyz), 6 (xyz, RGB) or 7 (xyz, RGB, size)"
            )
        sizes = ("width", "depth", "heads", "groups", "neighbours", "group_width", "embedding")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.group_width % 2:
            raise ValueError(f"group_width is {self.group_width}, expected an even number")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path is {self.drop_path}, expected 0 <= drop_path < 1")

    @property
    def feature_width(self) -> int:
        """F, the width of a region feature: class token and maximum over groups."""
        return 2 * self.width


SIZES: dict[str, PointBertConfig] = {
    "ulip1": PointBertConfig(),
    "ulip2": PointBertConfig(channels=6, depth=18, embedding=1280),
    "tiny": PointBertConfig(
        channels=7,
        width=256,
        depth=4,
        heads=4,
        groups=64,
        neighbours=16,
        group_width=128,
        embedding=384,
    ),
}


class PointBert(nn.Module):
    """Encodes regions; attribute names follow the public checkpoints so that their keys fit."""

    def __init__(self, config: PointBertConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = MiniPointNet(config.channels, config.group_width)
        self.reduce_dim = Linear(config.group_width, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embed = nn.Sequential(Linear(3, 128), nn.GELU(), Linear(128, width))
        self.blocks = BlockStack(config)
        self.norm = nn.LayerNorm(width)
        scale = config.embedding**-0.5
        self.pc_projection = nn.Parameter(
            torch.randn(config.feature_width, config.embedding) * scale
        )

    @classmethod
    def from_ulip(cls, state: Mapping[str, Tensor], up: Literal["y", "z"] = "z") -> "PointBert":
        """The point encoder inside a public ULIP or ULIP-2 checkpoint.

        Args:
            state: the checkpoint's `state_dict` (`module.point_encoder.…`, `module.pc_projection`).
                Sizes are read off the tensor shapes; heads are 64 wide and there are 512 groups of
                32, as in both public models. The image and text towers and `logit_scale` that lie
                in the same file are passed over.

            up: "y" for an encoder of regions with z up, "z" for one that takes points just as the
                published module does.

        Raises:
            ValueError: a key is missing, left over, or has an unexpected shape.
        """
        ours, left_over = _split_ulip_keys(state)
        model = cls(replace(_ulip_config(ours), up=up))
        expected = model.state_dict()
        missing = sorted(expected.keys() - ours.keys())
        left_over += sorted(ours.keys() - expected.keys())
        reshaped = [
            f"{key} is {tuple(ours[key].shape)}, expected {tuple(expected[key].shape)}"
            for key in sorted(expected.keys() & ours.keys())
            if ours[key].shape != expected[key].shape
        ]
        if missing or left_over or reshaped:
            raise ValueError(
                f"ULIP checkpoint does not fit Point-BERT: missing {missing}, "
                f"left over {left_over}, of other shape {reshaped}"
            )
        model.load_state_dict(ours)
        return model

    def forward(self, points: Float[Tensor, "R P C"], share: float = 1.0) -> Float[Tensor, "R F"]:
        """The feature of each region.

        Args:
            points: xyz, z up, centred with largest norm 1 and, where the model takes 6 or 7
                channels, RGB in [0, 1] and the size. Fewer points than neighbours or groups are
                allowed: indices repeat.
            share: of the groups that are looked at, above 0; others are drawn for each region. To
                mask what is learned from makes training faster, and objects more partial (FLIP: Li
                et al., CVPR 2023).

        Raises:
            ValueError: the number of channels is not the model's.
        """
        if points.shape[-1] != self.config.channels:
            expected = self.config.channels
            raise ValueError(f"points have {points.shape[-1]} channels, the model takes {expected}")
        if len(points) == 0:
            return points.new_zeros(0, self.config.feature_width)
        if self.config.up == "y":
            x, y, z, *rest = points.unbind(dim=-1)
            points = torch.stack([x, z, -y, *rest], dim=-1)
        groups, centres = self._group(points)
        if share < 1:
            groups, centres = _drawn(groups, centres, max(1, round(share * self.config.groups)))
        tokens = self.reduce_dim(self.encoder(groups))
        position = self.pos_embed(centres)
        tokens = torch.cat([self.cls_token.expand(len(points), -1, -1), tokens], dim=1)
        position = torch.cat([self.cls_pos.expand(len(points), -1, -1), position], dim=1)
        tokens = self.norm(self.blocks(tokens, position))
        return torch.cat([tokens[:, 0], tokens[:, 1:].amax(dim=1)], dim=-1)

    def embed(self, points: Float[Tensor, "R P C"], share: float = 1.0) -> Float[Tensor, "R E"]:
        """Unit vectors in the space shared with images and text; arguments as of `forward`."""
        return self.to_shared(self(points, share))

    def to_shared(self, features: Float[Tensor, "*R F"]) -> Float[Tensor, "*R E"]:
        """Features, as `forward` gives them, as unit vectors in the shared space."""
        return F.normalize(features @ self.pc_projection, dim=-1)

    def _group(
        self, points: Float[Tensor, "R P C"]
    ) -> tuple[Float[Tensor, "R G K C"], Float[Tensor, "R G 3"]]:
        """Neighbourhoods relative to their centres (colours stay as they are), and the centres."""
        xyz = points[..., :3].contiguous()
        exact = xyz.detach().float()
        chosen = farthest_point_sample(
            exact, self.config.groups, skip_near_origin=self.config.skip_near_origin
        )[..., None].expand(-1, -1, 3)
        neighbours = nearest_neighbours(exact.gather(1, chosen), exact, self.config.neighbours)
        centres = xyz.gather(1, chosen)
        groups = group(points, neighbours)
        relative = groups[..., :3] - centres[:, :, None]
        return torch.cat([relative, groups[..., 3:]], dim=-1), centres


def _drawn(
    groups: Float[Tensor, "R G K C"], centres: Float[Tensor, "R G 3"], count: int
) -> tuple[Float[Tensor, "R H K C"], Float[Tensor, "R H 3"]]:
    """So many groups of each region, at random, with their centres."""
    order = torch.rand(centres.shape[:2], device=centres.device).argsort(dim=1)[:, :count, None]
    chosen = groups.gather(1, order[..., None].expand(-1, -1, *groups.shape[2:]))
    return chosen, centres.gather(1, order.expand(-1, -1, 3))


# What lies beside the point encoder in public checkpoints: the SLIP and OpenCLIP towers.
_ULIP_TOWERS = (
    "visual.",
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "image_projection",
    "text_projection",
    "logit_scale",
    "open_clip_model.",
)


def _ulip_config(state: Mapping[str, Tensor]) -> PointBertConfig:
    """The sizes that the shapes of a checkpoint tell of."""
    depth = sum(key.startswith("blocks.") and key.endswith(".norm1.weight") for key in state)
    try:
        width = state["cls_token"].shape[-1]
        channels = state["encoder.first_conv.0.weight"].shape[1]
        group_width = state["encoder.second_conv.3.weight"].shape[0]
        embedding = state["pc_projection"].shape[1]
    except KeyError as error:
        raise ValueError(f"not a ULIP Point-BERT checkpoint: {error} is missing") from error
    except IndexError as error:
        raise ValueError("not a ULIP Point-BERT checkpoint: a weight has no columns") from error
    if width % 64:
        raise ValueError(f"not a ULIP Point-BERT checkpoint: width {width} is no multiple of 64")
    return PointBertConfig(
        channels=channels,
        width=width,
        depth=depth,
        heads=width // 64,
        group_width=group_width,
        embedding=embedding,
    )


def _split_ulip_keys(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The point encoder's tensors under our names, and the keys that nobody knows."""
    ours: dict[str, Tensor] = {}
    left_over: list[str] = []
    for full_key, value in state.items():
        key = full_key.removeprefix("module.")
        if key.startswith("point_encoder."):
            ours[key.removeprefix("point_encoder.")] = value
        elif key == "pc_projection":
            ours[key] = value
        elif not key.startswith(_ULIP_TOWERS):
            left_over.append(full_key)
    return ours, left_over


class MiniPointNet(nn.Module):
    """[R, G, K, C] -> [R, G, group_width], blind to the order of the K points.

    The 1x1 convolutions of the published model are matrix products on [points, C], and fewer: the
    half of `second_conv.0` that acts on the group's maximum is applied once a group, not K times;
    the other half and the convolution before it have nothing between them and are one product.
    In evaluation each normalisation is a part of the product before it.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(channels, width // 2, 1),
            nn.BatchNorm1d(width // 2),
            nn.ReLU(),
            nn.Conv1d(width // 2, width, 1),
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(2 * width, 2 * width, 1),
            nn.BatchNorm1d(2 * width),
            nn.ReLU(),
            nn.Conv1d(2 * width, width, 1),
        )

    def forward(self, groups: Float[Tensor, "R G K C"]) -> Float[Tensor, "R G D"]:
        conv1, norm1, _, conv2 = self.first_conv
        conv3, norm2, _, conv4 = self.second_conv
        (weight1, bias1), (weight2, bias2) = _matrix(conv1), _matrix(conv2)
        (weight3, bias3), (weight4, bias4) = _matrix(conv3), _matrix(conv4)
        of_group, of_point = weight3.chunk(2, dim=1)
        of_first, bias3 = of_point @ weight2, bias3 + of_point @ bias2
        if not self.training:
            (scale1, shift1), (scale2, shift2) = _affine(norm1), _affine(norm2)
            weight1, bias1 = scale1[:, None] * weight1, scale1 * bias1 + shift1
            of_group, of_first = scale2[:, None] * of_group, scale2[:, None] * of_first
            bias3 = scale2 * bias3 + shift2
            norm1 = norm2 = nn.Identity()

        def encode(part: Float[Tensor, "N K C"]) -> Float[Tensor, "N D"]:
            shape = part.shape[:2]
            first = F.relu(norm1(linear(part.flatten(0, 1), weight1, bias1)))
            overall = _largest(linear(first, weight2).unflatten(0, shape)) + bias2
            hidden = linear(first, of_first).unflatten(0, shape)
            hidden = hidden + linear(overall, of_group, bias3)[:, None]
            hidden = F.relu(norm2(hidden.flatten(0, 1)))
            return _largest(linear(hidden, weight4).unflatten(0, shape)) + bias4

        flat = groups.flatten(0, 1)
        at_once = max(1, _POINTS_AT_ONCE // groups.shape[2])
        if self.training or flat.is_cuda:
            at_once = len(flat)
        encoded = torch.cat([encode(part) for part in flat.split(at_once)])
        return encoded.unflatten(0, groups.shape[:2])


_POINTS_AT_ONCE = 1024  # in evaluation: what lies between two products stays in the cache


def _matrix(convolution: nn.Module) -> tuple[Float[Tensor, "B A"], Float[Tensor, "B"]]:
    """A 1x1 convolution as the matrix and the shift of a product."""
    assert isinstance(convolution, nn.Conv1d)
    assert convolution.bias is not None
    return convolution.weight.squeeze(-1), convolution.bias


def _largest(x: Float[Tensor, "N K D"]) -> Float[Tensor, "N D"]:
    """The maximum over K: `amax` is faster forward, `max` backward, as it knows the indices."""
    return x.max(dim=1).values if x.requires_grad else x.amax(dim=1)


def _affine(norm: nn.Module) -> tuple[Float[Tensor, "D"], Float[Tensor, "D"]]:
    """The factor and the shift that a normalisation is in evaluation."""
    assert isinstance(norm, nn.BatchNorm1d | nn.SyncBatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - scale * norm.running_mean


class BlockStack(nn.Module):
    """The transformer; the position is added again before every block, as published."""

    def __init__(self, config: PointBertConfig) -> None:
        super().__init__()
        # On the CPU also where transformers builds models on the meta device.
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config.width, config.heads, rate) for rate in rates)

    def forward(
        self, x: Float[Tensor, "R T D"], position: Float[Tensor, "R T D"]
    ) -> Float[Tensor, "R T D"]:
        for block in self.blocks:
            x = block(x + position)
        return x


class Block(nn.Module):
    """Pre-norm attention and MLP, with stochastic depth in training."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.drop_path = drop_path

    def forward(self, x: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        x = x + self._drop(self.attn(self.norm1(x)))
        return x + self._drop(self.mlp(self.norm2(x)))

    def _drop(self, branch: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        if not self.training or self.drop_path == 0:
            return branch
        keep = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop_path
        return branch * keep / (1 - self.drop_path)


class Attention(nn.Module):
    """Multi-head self-attention without a bias on q, k and v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.proj = Linear(width, width)

    def forward(self, x: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        return self.fc2(F.gelu(self.fc1(x)))
