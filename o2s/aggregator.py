"""Learned queries that gather the regions of a scene into a fixed number of scene tokens.

    region features [B, R, F] -> + position of each box [B, R, 6 -> F]
                              -> Q queries: cross-attention to the regions, self-attention
                              -> scene tokens [B, Q, F]

Follows Octavius (Chen et al., ICLR 2024, arXiv 2311.02684): 16 queries, one layer, eight heads,
LayerNorm after each residual, dropout 0.1, no feed-forward.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from o2s.ops.linear import Linear


@dataclass(frozen=True)
class AggregatorConfig:
    """`feed_forward` is the hidden width of an optional MLP in each layer; 0 leaves it out."""

    queries: int = 16
    layers: int = 1
    heads: int = 8
    feed_forward: int = 0
    dropout: float = 0.1
    position_width: int = 256

    def __post_init__(self) -> None:
        for name in ("queries", "layers", "heads", "position_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.feed_forward < 0:
            raise ValueError(f"feed_forward is {self.feed_forward}, expected 0 or a width")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, expected 0 <= dropout < 1")


class QueryAggregator(nn.Module):
    """Region features and boxes in, scene tokens of the same width out."""

    def __init__(self, config: AggregatorConfig, width: int) -> None:
        super().__init__()
        if width % config.heads:
            raise ValueError(f"width {width} is not a multiple of heads {config.heads}")
        self.config = config
        self.position = nn.Sequential(
            Linear(6, config.position_width), nn.ReLU(), Linear(config.position_width, width)
        )
        self.queries = nn.Parameter(torch.randn(config.queries, width) * 0.02)
        self.layers = nn.ModuleList(QueryLayer(config, width) for _ in range(config.layers))

    def forward(
        self,
        features: Float[Tensor, "B R F"],
        boxes: Float[Tensor, "B R 6"],
        mask: Bool[Tensor, "B R"],
    ) -> Float[Tensor, "B Q F"]:
        """Gather regions into tokens.

        Args:
            features: one feature a region.
            boxes: centre and size of each region, metres, relative to its scene.
            mask: true for real regions. What stands in padded places never matters. A scene
                without any region yields what the queries say among themselves.
        """
        padded = ~mask[..., None]
        # Boxes before the linear layer too: 0 times NaN would make its gradient NaN.
        positions = self.position(boxes.masked_fill(padded, 0))
        regions = (features + positions).masked_fill(padded, 0)
        tokens = self.queries.expand(len(features), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, regions, mask)
        return tokens


class QueryLayer(nn.Module):
    """Cross-attention, self-attention and, if asked for, a feed-forward; each post-norm."""

    def __init__(self, config: AggregatorConfig, width: int) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(
            width, config.heads, dropout=config.dropout, batch_first=True
        )
        self.cross_norm = nn.LayerNorm(width)
        self.among = nn.MultiheadAttention(
            width, config.heads, dropout=config.dropout, batch_first=True
        )
        self.among_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward = None
        if config.feed_forward:
            self.feed_forward = nn.Sequential(
                Linear(width, config.feed_forward),
                nn.GELU(),
                Linear(config.feed_forward, width),
            )
            self.feed_forward_norm = nn.LayerNorm(width)

    def forward(
        self,
        tokens: Float[Tensor, "B Q F"],
        regions: Float[Tensor, "B R F"],
        mask: Bool[Tensor, "B R"],
    ) -> Float[Tensor, "B Q F"]:
        # One zero region that everyone may attend to keeps the softmax of an empty scene finite.
        none = ~mask.any(dim=1, keepdim=True)
        regions = torch.cat([regions, regions.new_zeros(len(regions), 1, regions.shape[2])], dim=1)
        hidden = torch.cat([~mask, ~none], dim=1)
        gathered, _ = self.cross(
            tokens, regions, regions, key_padding_mask=hidden, need_weights=False
        )
        tokens = self.cross_norm(tokens + self.dropout(gathered))
        shared, _ = self.among(tokens, tokens, tokens, need_weights=False)
        tokens = self.among_norm(tokens + self.dropout(shared))
        if self.feed_forward is not None:
            tokens = self.feed_forward_norm(tokens + self.dropout(self.feed_forward(tokens)))
        return tokens
