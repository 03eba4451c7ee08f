"""Scene tokens in the language model's space: what it reads of a scene.

    queries   QueryAggregator's tokens [B, Q, F] -> Projector     -> [B, Q, D]
    objects   regions [B, R, ...]                -> ObjectTokens  -> [B, 6 R, D]

Octavius reads the first. The second begins in language: before any training each region reads like
"one" "lamp" "lamp" "brown" "bed" "table": the first one that the detector calls a lamp, a lamp by
its looks, brown, nearest to a bed, on a table.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

SceneTokenKind = Literal["octavius", "objects", "both"]
SCENE_TOKENS: tuple[SceneTokenKind, ...] = get_args(SceneTokenKind)
TOKENS_A_REGION = 6
NUMBERS = 16  # a region is the first, second, ... of its label, up to this
NAMES = 64  # of things, that a region can have by its looks
COLORS = 12
# The region encoder knows the things of its own training far better than others. Without dropout
# its word would there be taken for truer than it is elsewhere.
FEATURE_DROPOUT = 0.9

# What `SceneLM.forward` takes of the regions, beside region_features, _boxes and _mask.
OBJECT_INPUTS = (
    *("region_colors", "region_labels", "region_numbers"),
    *("region_near", "region_on", "region_marks"),
)
REGION_INPUTS = ("region_features", "region_boxes", "region_mask", *OBJECT_INPUTS)
SCENE_INPUTS = (*REGION_INPUTS, "focus_ids")  # with what the questions speak of


class Projector(nn.Module):
    """Scene tokens to the language model's width, at the scale of its own word embeddings."""

    def __init__(self, width: int, language_width: int, embedding_std: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, language_width)
        self.norm = nn.LayerNorm(language_width)
        nn.init.constant_(self.norm.weight, embedding_std)

    def forward(self, tokens: Float[Tensor, "B Q F"]) -> Float[Tensor, "B Q D"]:
        return self.norm(self.linear(tokens))


class SoftWord(nn.Module):
    """The mean of some words' embeddings, each as much as it is likely."""

    def __init__(self, head: nn.Module, count: int, width: int, embedding_std: float) -> None:
        super().__init__()
        self.head = head
        self.words = nn.Parameter(embedding_std * torch.randn(count, width))

    def forward(self, x: Float[Tensor, "*B X"]) -> Float[Tensor, "*B D"]:
        return self.head(x).softmax(dim=-1) @ self.words


class ObjectTokens(nn.Module):
    """Six tokens a region: which of its label it is, its label, what it is by its looks, its
    colour, what it is near, and what it is on.

    A label is the mean of the language model's embeddings of the detector's word. Name and colour
    are soft words, from the region's feature and label and from its colours; near and on are the
    names of other regions. `train.language_bridge` fits heads and words, so that they begin as
    words. Place and score are added to each token, and begin at nothing. That tokens of an object's
    neighbours help was found by 3DGraphLLM (Zemskova and Yudin, ICCV 2025, arXiv 2412.18450), which
    gives triplets of whole features.
    """

    def __init__(self, width: int, language_width: int, embedding_std: float) -> None:
        super().__init__()
        self.scale = embedding_std
        self.feature_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.feature_dropout = nn.Dropout(FEATURE_DROPOUT)
        self.numbers = nn.Embedding(NUMBERS, language_width)
        named = nn.Linear(width + language_width, NAMES)
        colored = nn.Sequential(nn.Linear(9, 128), nn.GELU(), nn.Linear(128, COLORS))
        self.name = SoftWord(named, NAMES, language_width, embedding_std)
        self.color = SoftWord(colored, COLORS, language_width, embedding_std)
        self.nothing = nn.Parameter(torch.zeros(2, language_width))  # near it, and beneath it
        self.kind = nn.Parameter(torch.zeros(TOKENS_A_REGION, language_width))
        self.mark = nn.Parameter(torch.zeros(language_width))
        last = nn.Linear(256, language_width)
        self.place = nn.Sequential(nn.Linear(7, 256), nn.GELU(), last)
        nn.init.normal_(self.numbers.weight, std=embedding_std)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self,
        features: Float[Tensor, "B R F"],
        boxes: Float[Tensor, "B R 7"],
        colors: Float[Tensor, "B R 9"],
        labels: Float[Tensor, "B R D"],
        numbers: Int[Tensor, "B R"],
        near: Int[Tensor, "B R"],
        on: Int[Tensor, "B R"],
        marks: Bool[Tensor, "B R"],
    ) -> Float[Tensor, "B R 6 D"]:
        """The tokens of each region.

        Args:
            features: what the region encoder says.
            boxes: centre and size in metres, and the detector's score.
            colors: as `RegionFeatures.colors`.
            labels: the embedded label of each region.
            numbers: how many of the same label stand before it.
            near, on: the places of the regions that it is near and on, -1 where there is none.
            marks: true for the one region that is spoken of.
        """
        names = self.name(torch.cat([self.known(features), labels / self.scale], dim=-1))
        words = [self.numbers(numbers), labels, names, self.color(2 * colors - 1)]
        for place, nothing in zip((near, on), self.nothing, strict=True):
            there = place.clamp_min(0)[..., None].expand_as(names)
            words.append(torch.where(place[..., None] < 0, nothing, names.gather(1, there)))
        # At the scale of words, so that the first steps of training do not drown them.
        more = self.scale * self.place(boxes) + marks[..., None] * self.mark
        return torch.stack(words, dim=2) + self.kind + more[:, :, None]

    def known(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B F"]:
        """What is read of region features."""
        return self.feature_dropout(self.feature_norm(features))
