"""What 3DETR is built of. Tensors are batch first; keys are those of facebookresearch/3detr."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from o2s.ops.linear import Linear, linear
from o2s.ops.neighbours import ball_query, group
from o2s.ops.sampling import farthest_point_sample

# Squares of the radii 0.4, 0.8 and 1.2 m, which the published encoder takes for metres.
MASK_DISTANCES = (0.4**2, 0.8**2, 1.2**2)


class SetAbstraction(nn.Module):
    """Farthest points, and of each the maximum over a small network of the points near to it."""

    def __init__(self, count: int, radius: float, neighbours: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.count, self.radius, self.neighbours = count, radius, neighbours
        self.mlp_module = nn.ModuleDict(
            {f"layer{i}": PointLayer(widths[i], widths[i + 1]) for i in range(len(widths) - 1)}
        )

    def forward(
        self, points: Float32[Tensor, "B N 3"], features: Float[Tensor, "B N D"] | None
    ) -> tuple[Float32[Tensor, "B M 3"], Float[Tensor, "B M F"]]:
        """[B, N, 3], [B, N, D] -> the chosen points and their features."""
        chosen = farthest_point_sample(points, self.count, skip_near_origin=True)
        centres = points.gather(1, chosen[..., None].expand(-1, -1, 3))
        near = ball_query(centres, points, self.radius, self.neighbours).indices
        x = (group(points, near) - centres[:, :, None]) / self.radius
        if features is not None:
            x = torch.cat([x, group(features, near)], dim=-1)
        shape, x = x.shape[:3], x.flatten(0, 2).T
        for layer in self.mlp_module.values():
            x = layer(x)
        return centres, x.unflatten(1, shape).amax(dim=3).movedim(0, 2)


class PointLayer(nn.Module):
    """[in, M] -> [out, M]: the published 1x1 convolution, batch normalisation, ReLU.

    Channels come first since torch's statistics of [M, out] are less exact on a CPU.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.ModuleDict({"bn": nn.BatchNorm1d(outputs)})
        nn.init.kaiming_normal_(self.conv.weight)

    def forward(self, x: Float[Tensor, "D M"]) -> Float[Tensor, "F M"]:
        return F.relu(self.bn["bn"](linear(self.conv.weight.flatten(1), x.T)[None])[0])


class Mlp(nn.Module):
    """Layers on the last axis; a `whole` one ends as its hidden layers do, not with numbers.

    Convolutions before a norm have no bias.
    """

    def __init__(
        self, widths: Sequence[int], norm: bool, whole: bool, dropout: float | None = None
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for i in range(len(widths) - 1):
            last = i == len(widths) - 2
            plain = last and not whole
            self.layers.append(nn.Conv1d(widths[i], widths[i + 1], 1, bias=plain or not norm))
            if norm and not plain:
                self.layers.append(nn.BatchNorm1d(widths[i + 1]))
            if not plain:
                self.layers.append(nn.ReLU())
            if dropout is not None and not last:
                self.layers.append(nn.Dropout(dropout))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch F"]:
        return self.layers(x.flatten(0, -2).T[None])[0].T.unflatten(0, x.shape[:-1])


class FourierEmbedding(nn.Module):
    """Random frequencies of the place in the cloud (Tancik et al., NeurIPS 2020, eq. 5)."""

    gauss_B: Tensor  # noqa: N815

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("gauss_B", torch.randn(3, width // 2))

    def forward(
        self,
        points: Float[Tensor, "B N 3"],
        low: Float[Tensor, "B 3"],
        high: Float[Tensor, "B 3"],
    ) -> Float[Tensor, "B N D"]:
        """Sines, then cosines; a cloud without extent has its points at 0."""
        placed = (points - low[:, None]) / (high - low).clamp_min(1e-6)[:, None]
        angles = (placed * (2 * math.pi)) @ self.gauss_B
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Encoder(nn.Module):
    """Tokens look at all tokens. There is no embedding of their places, nor a norm at the end."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(width, heads, hidden, dropout) for _ in range(layers)
        )
        _reset(self)

    def forward(
        self, places: Float32[Tensor, "B N 3"], x: Float[Tensor, "B N D"]
    ) -> tuple[Float32[Tensor, "B M 3"], Float[Tensor, "B M D"]]:
        """The tokens' places and what they are in the end."""
        for layer in self.layers:
            x = layer(x, None)
        return places, x


class MaskedEncoder(Encoder):
    """Tokens look at tokens near to them; after the first layer only `count` are kept."""

    def __init__(self, count: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__(len(MASK_DISTANCES), width, heads, hidden, dropout)
        widths = [3 + width, 256, 256, width]
        self.interim_downsampling = SetAbstraction(count, 0.4, 32, widths)

    def forward(
        self, places: Float32[Tensor, "B N 3"], x: Float[Tensor, "B N D"]
    ) -> tuple[Float32[Tensor, "B M 3"], Float[Tensor, "B M D"]]:
        """The places of the tokens that are kept and what they are in the end."""
        first, *others = zip(self.layers, MASK_DISTANCES, strict=True)
        x = first[0](x, sees(places, first[1]))
        places, x = self.interim_downsampling(places, x)
        for layer, distance in others:
            x = layer(x, sees(places, distance))
        return places, x


class Decoder(nn.Module):
    """Queries look at each other and at the tokens; what they are after each layer comes out."""

    def __init__(self, layers: int, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(width, heads, hidden, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        _reset(self)

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        places: Float[Tensor, "B N D"],
        queries: Float[Tensor, "B Q D"],
    ) -> Float[Tensor, "L B Q D"]:
        """Tokens, and where they and the queries are; the latter start out as nothing."""
        x, said = torch.zeros_like(queries), []
        for layer in self.layers:
            x = layer(x, tokens, places, queries)
            said.append(self.norm(x))
        return torch.stack(said)


class EncoderLayer(nn.Module):
    """Attention and two linear layers, each after a norm."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = Linear(width, hidden), Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N N"] | None
    ) -> Float[Tensor, "B N D"]:
        """`mask` is true where a token sees another; None for everywhere."""
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y, y, y, mask))
        y = self.dropout(F.relu(self.linear1(self.norm2(x))))
        return x + self.dropout(self.linear2(y))


class DecoderLayer(nn.Module):
    """Attention among queries, attention to tokens and two linear layers, each after a norm."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads, dropout)
        self.multihead_attn = Attention(width, heads, dropout)
        self.linear1, self.linear2 = Linear(width, hidden), Linear(hidden, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B Q D"],
        tokens: Float[Tensor, "B N D"],
        places: Float[Tensor, "B N D"],
        queries: Float[Tensor, "B Q D"],
    ) -> Float[Tensor, "B Q D"]:
        """`places` and `queries` say where the tokens and the queries are."""
        y = self.norm1(x)
        x = x + self.dropout(self.self_attn(y + queries, y + queries, y))
        y = self.norm2(x)
        x = x + self.dropout(self.multihead_attn(y + queries, tokens + places, tokens))
        y = self.dropout(F.relu(self.linear1(self.norm3(x))))
        return x + self.dropout(self.linear2(y))


class Attention(nn.Module):
    """nn.MultiheadAttention, whose parameters it has, with one mask for all heads."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        key: Float[Tensor, "B N D"],
        value: Float[Tensor, "B N D"],
        mask: Bool[Tensor, "B Q N"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (
            linear(x, weight, bias).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = None if mask is None else mask[:, None]
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


@torch.no_grad()
def sees(places: Float32[Tensor, "B N 3"], distance: float) -> Bool[Tensor, "B N N"]:
    """Which tokens are nearer to each other than `distance`, in metres."""
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(places, places, compute_mode=exact) < distance


def _reset(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter)
