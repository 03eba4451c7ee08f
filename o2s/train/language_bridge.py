"""Begin the bridge in language: object tokens that read as words before any training.

Region features lie in a space that is shared with texts. So a linear map from there to the language
model's own input embeddings can be fitted on texts alone, by ridge regression over the words that
the language model knows, and used on regions.

    phrases -> text tower [M, E], mean of the language model's embeddings [M, D] -> W [E, D]
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from o2s.datasets.color_names import NAMES as COLORS
from o2s.datasets.color_names import name_of
from o2s.datasets.room_question_kinds import NUMBERS
from o2s.llm.scene_tokens import ObjectTokens

SHRINKAGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
HELD_OUT = 10  # every so many-th phrase chooses the shrinkage


@dataclass(frozen=True)
class BridgeReport:
    """How well the map fits: `explained` is the share of the variance of held-out phrases' language
    embeddings, `shrinkage` the ridge that was best there."""

    phrases: int
    shrinkage: float
    explained: float


def phrases(tokenizer: Any, names: Sequence[str], most: int = 10_000) -> list[str]:
    """Words that are one token, in the order of the vocabulary, and names with colours."""
    words = dict.fromkeys(names)
    words |= dict.fromkeys(f"{color} {name}" for name in names for color in COLORS)
    words |= dict.fromkeys(COLORS)
    for token in range(len(tokenizer)):
        if len(words) >= most:
            break
        text = tokenizer.decode([token])
        word = text.strip()
        if text == f" {word}" and len(word) > 2 and word.isascii() and word.islower():
            words[word] = None
    return list(words)


def word_embeddings(
    texts: Sequence[str], tokenizer: Any, embedding: nn.Module
) -> Float[Tensor, "M D"]:
    """The mean of the language model's input embeddings of each text, as inside a sentence."""
    found = [
        embedding(torch.tensor(tokenizer(f" {text}", add_special_tokens=False)["input_ids"])).mean(
            0
        )
        for text in texts
    ]
    return torch.stack(found).float()


def ridge(
    inputs: Float[Tensor, "M E"], targets: Float[Tensor, "M D"], shrinkage: float
) -> Float[Tensor, "E D"]:
    """argmin |X W - Y|² + shrinkage |W|², in closed form."""
    identity = torch.eye(inputs.shape[1])
    return torch.linalg.solve(inputs.T @ inputs + shrinkage * identity, inputs.T @ targets)


@torch.no_grad()
def begin_in_language(
    tokens: ObjectTokens,
    tokenizer: Any,
    embedding: nn.Module,
    embed_texts: Callable[[Sequence[str]], Float[Tensor, "M E"]],
    names: Sequence[str],
    regions: Float[Tensor, "R E"],
) -> BridgeReport:
    """Set what makes object tokens so that they read as words.

    Args:
        tokens: of a new model.
        tokenizer, embedding: of the language model.
        embed_texts: the text tower that the region encoder is aligned to.
        names: of classes of things.
        regions: some regions' embeddings in the shared space. Contrastive training leaves regions
            and texts apart; their mean and spread bring the ones to the others.
    """
    known = phrases(tokenizer, names)
    inputs, targets = embed_texts(known), word_embeddings(known, tokenizer, embedding)
    x_mean, y_mean = inputs.mean(0), targets.mean(0)
    x, y = inputs - x_mean, targets - y_mean
    held = torch.arange(len(known)) % HELD_OUT == 0

    def explained(shrinkage: float) -> float:
        error = y[held] - x[held] @ ridge(x[~held], y[~held], shrinkage)
        return float(1 - error.square().sum() / y[held].square().sum())

    best = max(SHRINKAGES, key=explained)
    mapped = ridge(x, y, best)
    things = inputs[: len(names)]
    gain = float(things.std(0).norm() / regions.std(0).norm().clamp_min(1e-6))
    tokens.look.weight.copy_((gain * mapped).T)
    tokens.look.bias.copy_(y_mean + (things.mean(0) - x_mean - gain * regions.mean(0)) @ mapped)
    words = word_embeddings(NUMBERS[1:], tokenizer, embedding)
    tokens.numbers.weight.copy_(
        words[torch.arange(len(tokens.numbers.weight)).clamp_max(len(words) - 1)]
    )
    names_of_colors = word_embeddings(COLORS, tokenizer, embedding)
    _fit_colors(tokens.color, names_of_colors - names_of_colors.mean(0))
    return BridgeReport(len(known), best, explained(best))


@torch.enable_grad()
def _fit_colors(network: nn.Module, words: Float[Tensor, "12 D"], steps: int = 600) -> None:
    """Have the colours of a region say the name of their median, by made-up examples, of which
    each name has as many."""
    generator = torch.Generator().manual_seed(0)
    medians = torch.rand(8192, 3, generator=generator) ** 1.5
    drawn = (255 * medians).numpy().astype(np.uint8)
    names = torch.tensor([COLORS.index(name_of(color)) for color in drawn])
    spread = 0.3 * torch.rand(len(medians), 1, 2, generator=generator)
    low, high = medians - spread[..., 0], medians + spread[..., 1]
    inputs = torch.stack([low, medians, high], dim=2).clamp(0, 1).flatten(1)
    rarity = 1 / torch.bincount(names, minlength=len(COLORS)).clamp_min(1)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.multinomial(rarity[names], 256, generator=generator)
        loss = F.mse_loss(network(inputs[rows]), words[names[rows]]) / words.var()
        optimizer.zero_grad()
        cast(Tensor, loss).backward()
        optimizer.step()
    for parameter in network.parameters():
        parameter.grad = None
