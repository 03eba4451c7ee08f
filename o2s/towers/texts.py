"""What text towers share: texts to tokens, in portions, to unit vectors.

texts -> tokenizer    ids [M, T], cut at `longest`
      -> network      [M, D]
      -> length 1     [M, D]
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor

from o2s import weights
from o2s.errors import InputError

PORTION = 64  # texts through a network at once


class PortionedTextTower(ABC):
    """Texts to unit vectors on the CPU, in portions.

    `cut` counts the texts so far that were longer than `longest` tokens.
    """

    name: str
    width: int
    longest: int
    cut: int

    def __call__(self, texts: Sequence[str]) -> Float32[Tensor, "M D"]:
        """Unit vectors, the same alone and in a batch."""
        return F.normalize(self.embed(texts), dim=-1)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float32[Tensor, "M D"]:
        """What the network says, before it is brought to length 1."""
        found: list[Float32[Tensor, "_ D"]] = [torch.zeros(0, self.width)]
        for start in range(0, len(texts), PORTION):
            found.append(self._embed(list(texts[start : start + PORTION])).float().cpu())
        return torch.cat(found)

    @abstractmethod
    def _embed(self, portion: list[str]) -> Float[Tensor, "M D"]:
        """The vectors of one portion, wherever the network is; counts what is `cut`."""


class TokenizedTextTower(PortionedTextTower):
    """A network with its tokenizer, one of transformers."""

    def __init__(
        self,
        name: str,
        width: int,
        *,
        tokenizer: Any,
        longest: int,
        encode: Callable[[Mapping[str, Tensor]], Float[Tensor, "M D"]],
        device: torch.device,
        padding: str = "longest",
    ) -> None:
        """Put a tower together.

        Args:
            name: what this tower is, for caches of its vectors.
            width: D.
            tokenizer: one of transformers.
            longest: how many tokens the network reads.
            encode: what the tokenizer gives, on `device`, to D numbers a text, of any length.
            device: where the network is.
            padding: how the tokenizer fills up shorter texts: "longest" or "max_length".
        """
        self.name = name
        self.width = width
        self.tokenizer = tokenizer
        self.longest = longest
        self.cut = 0
        self._encode = encode
        self._device = device
        self._padding = padding

    def _embed(self, portion: list[str]) -> Float[Tensor, "M D"]:
        lengths = [len(ids) for ids in self.tokenizer(portion, verbose=False)["input_ids"]]
        self.cut += sum(length > self.longest for length in lengths)
        inputs = self.tokenizer(
            portion,
            padding=self._padding,
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        ).to(self._device)
        return self._encode(inputs)


def model_error(model: str | Path, kind: str, error: Exception) -> InputError:
    """That a text or image model (`kind`) cannot be loaded, in one line."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return InputError(f"{model}: not a readable {kind} model ({line[:200]})")


def refuse_missing(model: str | Path, missing: Sequence[str]) -> None:
    """transformers fills what a checkpoint lacks with random numbers and goes on; here it ends.

    Raises:
        InputError: a weight is missing.
    """
    if missing:
        raise InputError(f"{model}: {len(missing)} weights are missing, such as {min(missing)}")


def require_tokens(model: str | Path, tokenizer: Any, known: int) -> None:
    """That a tokenizer can belong to a model of `known` tokens, some of which may be unused.

    transformers makes a tokenizer of two tokens out of a folder that holds none.

    Raises:
        InputError: it has more tokens, or less than half.
    """
    if not known / 2 <= len(tokenizer) <= known:
        raise InputError(
            f"{model}: not a readable text model (a tokenizer of {len(tokenizer)} tokens, expected "
            f"{known}); its tokenizer should lie with it"
        )


def checksum(*files: Path) -> str:
    """The beginnings of files' SHA-256, enough to tell weights apart."""
    return ":".join(weights.sha256(file)[:16] for file in files)
