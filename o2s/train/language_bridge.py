"""Begin the bridge in language: object tokens that read as words before any training.

Name and colour of a region are soft words: means of the language model's own word embeddings,
weighted by a small classifier. The classifiers are fitted to what the records say of objects that
were detected, in seconds, before the language model is trained.

    feature [F], label [D] -> which of the names   -> mean of the names' embeddings [D]
    colours [9]            -> which of the colours -> mean of the colours' embeddings [D]
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from o2s.datasets.color_names import NAMES as COLOR_NAMES
from o2s.llm.scene_tokens import NAMES, ObjectTokens
from o2s.words import NUMBERS

KINDS = ("one", "detected", "named", "colored", "near", "on")  # what each token of a region says
NOTHING = ("nothing", "floor")  # what is near and beneath where no object is
NEVER = -30.0  # the logit of a name that there is not
_COLORED = re.compile(rf"\b({'|'.join(COLOR_NAMES)}) (?=[a-z])")


@dataclass(frozen=True)
class SeenObject:
    """A detected region, and what the records say of the object that it is."""

    feature: Float[Tensor, "F"]
    colors: Float[Tensor, "9"] | None
    label: str
    name: str
    color: str | None


@dataclass(frozen=True)
class BridgeReport:
    """How many words a region can begin as, and the share of held-out objects that begin as their
    own name and colour."""

    names: int
    named: float
    colored: float | None


def color_of(name: str, texts: Sequence[str]) -> str | None:
    """The colour that descriptions give a thing ("the brown chair"); None if none, or several."""
    found = {
        said[1]
        for text in texts
        for said in _COLORED.finditer(text.lower())
        if text.lower()[said.end() :].startswith(name.lower())
    }
    return found.pop() if len(found) == 1 else None


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


@torch.no_grad()
def begin_in_language(
    tokens: ObjectTokens,
    tokenizer: Any,
    embedding: nn.Module,
    train: Sequence[SeenObject],
    held_out: Sequence[SeenObject],
) -> BridgeReport:
    """Set what makes object tokens so that they read as words.

    Args:
        tokens: of a new model.
        tokenizer, embedding: of the language model.
        train: what the classifiers are fitted to.
        held_out: what they are measured on.
    """

    def words(texts: Sequence[str]) -> Float[Tensor, "M D"]:
        return word_embeddings(texts, tokenizer, embedding)

    names = [name for name, _ in Counter(o.name for o in train).most_common(NAMES)]
    labels = sorted({o.label for o in (*train, *held_out)})
    embedded = dict(zip(labels, words(labels), strict=True)) if labels else {}
    numbers = words(NUMBERS)
    tokens.numbers.weight.copy_(
        numbers[torch.arange(len(tokens.numbers.weight)).clamp_max(len(numbers) - 1)]
    )
    # The kind of a token only tinges it: its own word must be heard.
    tokens.kind.copy_(0.3 * words(KINDS))
    tokens.nothing.copy_(words(NOTHING))
    tokens.color.words.copy_(words(COLOR_NAMES))

    def known(objects: Sequence[SeenObject]) -> Float[Tensor, "M X"]:
        features = tokens.known(torch.stack([o.feature for o in objects]))
        labels = torch.stack([embedded[o.label] for o in objects])
        return torch.cat([features, labels / tokens.scale], dim=1)

    named, colored = 0.0, None
    if names:
        tokens.name.words[: len(names)] = words(names)
        head = cast(nn.Linear, tokens.name.head)
        head.bias[len(names) :] = NEVER
        chosen = [o for o in train if o.name in names]
        targets = _numbers(names, [o.name for o in chosen])
        tokens.train()
        _fit(head, targets, lambda rows: known([chosen[row] for row in rows.tolist()]))
        tokens.eval()
        if held_out:
            found = head(known(held_out)).argmax(dim=1).tolist()
            expected = [names.index(o.name) if o.name in names else -1 for o in held_out]
            named = _share(found, expected)
    fitted, measured = (
        [(2 * o.colors - 1, o.color) for o in objects if o.colors is not None and o.color]
        for objects in (train, held_out)
    )
    if fitted:
        shown, said = zip(*fitted, strict=True)
        colors = torch.stack(shown)
        _fit(tokens.color.head, _numbers(COLOR_NAMES, said), lambda rows: colors[rows])
    if fitted and measured:
        shown, said = zip(*measured, strict=True)
        found = tokens.color.head(torch.stack(shown)).argmax(dim=1).tolist()
        colored = _share(found, _numbers(COLOR_NAMES, said).tolist())
    return BridgeReport(len(names), named, colored)


def _numbers(words: Sequence[str], said: Sequence[str]) -> Int[Tensor, "M"]:
    return torch.tensor([words.index(word) for word in said])


def _share(found: Sequence[int], expected: Sequence[int]) -> float:
    return sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)


@torch.enable_grad()
def _fit(
    network: nn.Module,
    targets: Int[Tensor, "M"],
    inputs: Callable[[Int[Tensor, "N"]], Float[Tensor, "N X"]],
    steps: int = 2000,
) -> None:
    """A classifier, by examples that are drawn at random."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        rows = torch.randint(len(targets), (256,), generator=generator)
        optimizer.zero_grad()
        cast(Tensor, F.cross_entropy(network(inputs(rows)), targets[rows])).backward()
        optimizer.step()
        schedule.step()
    for parameter in network.parameters():
        parameter.grad = None
