"""Any text as one vector: a name by its prompts, as zero-shot classification averages them, a
sentence as it is."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from o2s.evaluate.text_embeddings import fill, unit
from o2s.words import without_article

PHRASE = 4  # texts of at most so many words are names


def prompts_of(text: str, templates: Sequence[str]) -> list[str]:
    """A name in every template, which brings its own article; a longer text, which fits into none,
    as it is."""
    name = without_article(text)
    short = len(name.split()) <= PHRASE
    return [fill(template, name) for template in templates] if short else [text]


def embed_phrases(
    texts: Sequence[str],
    templates: Sequence[str],
    embed: Callable[[Sequence[str]], Float[Tensor, "M E"]],
) -> Float[Tensor, "Q E"]:
    """A unit vector a text: the mean over its prompts.

    Args:
        texts: Q texts, at least one.
        templates: each with one `{}`.
        embed: a text tower; called once, with all prompts one after the other.

    Raises:
        InputError: the prompts of a text cancel each other out.
    """
    prompts = [prompts_of(text, templates) for text in texts]
    vectors = unit(
        embed([prompt for some in prompts for prompt in some]), lambda row: f"prompt {row + 1}"
    )
    means = [part.mean(dim=0) for part in vectors.split([len(some) for some in prompts])]
    return unit(torch.stack(means), lambda row: f"the embedding of {texts[row]!r}")
