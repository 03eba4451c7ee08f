"""Object tokens that begin as words."""

import torch
from fakes import byte_tokenizer

from o2s.datasets.color_names import NAMES as COLORS
from o2s.llm.scene_tokens import ObjectTokens
from o2s.train.language_bridge import begin_in_language, phrases, ridge, word_embeddings

NAMES = ["chair", "table", "lamp", "bed", "door", "sofa"]


def test_ridge_is_the_least_of_its_objective() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 4), torch.randn(30, 3)
    w = ridge(x, y, 0.7).requires_grad_()
    ((x @ w - y).square().sum() + 0.7 * w.square().sum()).backward()
    assert w.grad is not None
    assert w.grad.abs().max() < 1e-4


def test_phrases_are_names_colours_and_words() -> None:
    found = phrases(byte_tokenizer(), NAMES, most=500)
    assert found[: len(NAMES)] == NAMES
    assert "red chair" in found
    assert set(COLORS) <= set(found)
    assert len(found) == len(set(found))


def test_words_are_the_mean_of_their_tokens() -> None:
    torch.manual_seed(0)
    embedding, tokenizer = torch.nn.Embedding(300, 8), byte_tokenizer()
    (found,) = word_embeddings(["ab"], tokenizer, embedding)
    ids = torch.tensor(tokenizer(" ab")["input_ids"])
    assert torch.allclose(found, embedding(ids).mean(0))


def test_a_region_begins_as_its_name_and_colour() -> None:
    torch.manual_seed(0)
    embedding, tokenizer = torch.nn.Embedding(300, 16), byte_tokenizer()
    known = phrases(tokenizer, NAMES)
    words = word_embeddings(known, tokenizer, embedding).detach()
    into = torch.randn(16, 24)

    def tower(texts: list[str]) -> torch.Tensor:  # a space from which the words can be read
        return word_embeddings(texts, tokenizer, embedding).detach() @ into

    tokens = ObjectTokens(8, 24, 16, 1.0)
    things = tower(NAMES)
    regions = 0.5 * things + 3  # regions lie elsewhere, and closer together, than texts
    report = begin_in_language(tokens, tokenizer, embedding, tower, NAMES, regions)
    assert report.phrases == len(known)
    assert report.explained > 0.95
    said = tokens.look(regions)
    assert torch.cdist(said, words[: len(NAMES)]).argmin(dim=1).tolist() == list(range(len(NAMES)))
    colors = word_embeddings(COLORS, tokenizer, embedding)
    shades = torch.tensor([[0.9, 0.05, 0.05], [0.05, 0.2, 0.9], [0.05, 0.05, 0.05]])
    seen = tokens.color(shades[:, :, None].expand(-1, -1, 3).flatten(1)) + colors.mean(0)
    found = [COLORS[i] for i in torch.cdist(seen, colors).argmin(dim=1).tolist()]
    assert found == ["red", "blue", "black"]
    assert torch.equal(tokens.numbers.weight[0], word_embeddings(["one"], tokenizer, embedding)[0])
    assert all(p.grad is None for p in tokens.parameters())
