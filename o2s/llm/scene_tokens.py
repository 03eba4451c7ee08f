"""Scene tokens in the language model's space: what it reads of a scene.

    queries   QueryAggregator's tokens [B, Q, F] -> Projector     -> [B, Q, D]
    objects   regions [B, R, ...]                -> ObjectTokens  -> [B, 3 R, D]

Octavius reads the first. The second begins in language: before any training each region reads like
"one" "chair" "brown".
"""

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

SceneTokenKind = Literal["octavius", "objects", "both"]
SCENE_TOKENS: tuple[SceneTokenKind, ...] = get_args(SceneTokenKind)
TOKENS_A_REGION = 3
NUMBERS = 16  # a region is the first, second, ... of its name, up to this

# What `SceneLM.forward` takes of the regions, beside region_features, _boxes and _mask.
OBJECT_INPUTS = ("region_colors", "region_names", "region_numbers", "region_marks")
REGION_INPUTS = ("region_features", "region_boxes", "region_mask", *OBJECT_INPUTS)


class Projector(nn.Module):
    """Scene tokens to the language model's width, at the scale of its own word embeddings."""

    def __init__(self, width: int, language_width: int, embedding_std: float) -> None:
        super().__init__()
        self.linear = nn.Linear(width, language_width)
        self.norm = nn.LayerNorm(language_width)
        nn.init.constant_(self.norm.weight, embedding_std)

    def forward(self, tokens: Float[Tensor, "B Q F"]) -> Float[Tensor, "B Q D"]:
        return self.norm(self.linear(tokens))


class ObjectTokens(nn.Module):
    """Three tokens a region: which of its name it is, its name, and how it looks.

    The name is the mean of the language model's embeddings of the detector's label. The looks are
    a linear function of the region's embedding in the space that it shares with texts, and a small
    network of its colours; `train.language_bridge` fits both to words, so that they begin as words.
    Where it is, its score, and what else its feature says are added to each, and begin at nothing.
    """

    def __init__(
        self, width: int, shared_width: int, language_width: int, embedding_std: float
    ) -> None:
        super().__init__()
        self.scale = embedding_std
        self.feature_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.numbers = nn.Embedding(NUMBERS, language_width)
        self.look = nn.Linear(shared_width, language_width)
        self.color = nn.Sequential(nn.Linear(9, 128), nn.GELU(), nn.Linear(128, language_width))
        everything = TOKENS_A_REGION * language_width
        self.place = nn.Sequential(nn.Linear(7, 256), nn.GELU(), nn.Linear(256, everything))
        self.rest = nn.Linear(width, everything)
        self.mark = nn.Parameter(torch.zeros(language_width))
        nn.init.normal_(self.numbers.weight, std=embedding_std)
        for last in (self.place[-1], self.rest):
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(
        self,
        features: Float[Tensor, "B R F"],
        shared: Float[Tensor, "B R E"],
        boxes: Float[Tensor, "B R 7"],
        colors: Float[Tensor, "B R 9"],
        names: Float[Tensor, "B R D"],
        numbers: Int[Tensor, "B R"],
        marks: Bool[Tensor, "B R"],
    ) -> Float[Tensor, "B R 3 D"]:
        """The tokens of each region.

        Args:
            features: what the region encoder says.
            shared: the same as unit vectors, in the space shared with texts.
            boxes: centre and size in metres, and the detector's score.
            colors: as `RegionFeatures.colors`.
            names: the embedded label of each region.
            numbers: how many of the same name stand before it.
            marks: true for the one region that is spoken of.
        """
        words = torch.stack(
            [self.numbers(numbers), names, self.look(shared) + self.color(colors)], 2
        )
        # At the scale of words, so that the first steps of training do not drown them.
        said = self.feature_norm(features) / features.shape[-1] ** 0.5
        more = self.scale * (self.place(boxes) + self.rest(said))
        return words + more.unflatten(2, (TOKENS_A_REGION, -1)) + marks[..., None, None] * self.mark
