"""Any text as one vector, beside the averages of zero-shot classification."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from o2s.evaluate.phrases import embed_phrases, prompts_of
from o2s.evaluate.text_embeddings import TextEmbeddings, fill, read_templates


def tower(texts: Sequence[str]) -> torch.Tensor:
    """Vectors that depend on the letters of each text alone."""
    rows = [[float(text.count(letter)) + 0.1 for letter in "abcdeiorst"] for text in texts]
    return F.normalize(torch.tensor(rows), dim=1)


def test_names_stand_in_templates_and_sentences_do_not() -> None:
    templates = ("{}", "a scan of a {}.")
    prompts = prompts_of("red office chair", templates)
    assert prompts == ["red office chair", "a scan of a red office chair."]
    assert prompts_of("a red office chair", templates) == prompts
    sentence = "something to sit on with wheels"
    assert prompts_of(sentence, templates) == [sentence]


def test_names_are_embedded_as_zero_shot_classification_does() -> None:
    names, templates = ("chair", "table lamp"), read_templates()
    # Towers whose vectors have other lengths count the same in the average.
    lengths = torch.linspace(0.5, 2, len(names) * len(templates))[:, None]
    found = embed_phrases(names, templates, lambda prompts: tower(prompts) * lengths)
    each = torch.stack([tower([fill(t, name) for t in templates]) for name in names])
    torch.testing.assert_close(found, TextEmbeddings(names, templates, each).vectors())


def test_phrases_with_and_without_templates_keep_their_own_prompts() -> None:
    templates = ("{}", "a {}.")
    phrases = ["chair", "something to sit on with wheels", "lamp"]
    together = embed_phrases(phrases, templates, tower)
    for phrase, vector in zip(phrases, together, strict=True):
        torch.testing.assert_close(vector, embed_phrases([phrase], templates, tower)[0])
