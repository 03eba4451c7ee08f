"""Object tokens that begin as words."""

import torch
from fakes import byte_tokenizer

from o2s.datasets.color_names import NAMES as COLORS
from o2s.llm.scene_tokens import ObjectTokens
from o2s.train.language_bridge import (
    NEVER,
    BridgeReport,
    SeenObject,
    begin_in_language,
    color_of,
    word_embeddings,
)

THINGS = ["chair", "table", "lamp"]


def seen(count: int, seed: int) -> list[SeenObject]:
    """Things whose feature tells their name, which their label does not, and their colour."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(count):
        feature = 0.3 * torch.randn(8, generator=generator)
        feature[i % 3] += 3
        shade = 0.1 * torch.rand(9, generator=generator)
        colors = shade + torch.tensor([0.8, 0.1, 0.1] if i % 2 else [0.1, 0.1, 0.8])[
            :, None
        ].expand(3, 3).reshape(9)
        color = None if i % 5 == 0 else ("red" if i % 2 else "blue")
        found.append(SeenObject(feature, colors, "thing", THINGS[i % 3], color))
    return found


def begun(train: list[SeenObject], held_out: list[SeenObject]) -> tuple[ObjectTokens, BridgeReport]:
    torch.manual_seed(0)
    tokens = ObjectTokens(8, 16, 1.0)
    embedding = torch.nn.Embedding(300, 16)
    return tokens, begin_in_language(tokens, byte_tokenizer(), embedding, train, held_out)


def test_words_are_the_mean_of_their_tokens() -> None:
    torch.manual_seed(0)
    embedding, tokenizer = torch.nn.Embedding(300, 8), byte_tokenizer()
    (found,) = word_embeddings(["ab"], tokenizer, embedding)
    ids = torch.tensor(tokenizer(" ab")["input_ids"])
    assert torch.allclose(found, embedding(ids).mean(0))


def test_the_colour_that_is_said_of_a_thing() -> None:
    assert color_of("chair", ["It is near the white table.", "The brown chair is here."]) == "brown"
    assert color_of("office chair", ["A Red office chair."]) == "red"
    assert color_of("chair", ["the brown chair", "the white chair"]) is None
    assert color_of("chair", ["the brown table", "a chair"]) is None


def test_a_region_begins_as_its_name_and_colour() -> None:
    tokens, report = begun(seen(300, 0), seen(60, 1))
    assert report.names == 3
    assert report.named > 0.9
    assert report.colored == 1.0
    torch.manual_seed(0)
    ObjectTokens(8, 16, 1.0)
    embedding = torch.nn.Embedding(300, 16)
    words = word_embeddings([*THINGS, "thing"], byte_tokenizer(), embedding)
    colors = word_embeddings(COLORS, byte_tokenizer(), embedding)
    others = seen(60, 2)
    known = tokens.known(torch.stack([o.feature for o in others]))
    names = tokens.name(torch.cat([known, words[3:].expand(60, -1)], dim=1))
    said = torch.cdist(names, words[:3]).argmin(dim=1).tolist()
    assert sum(THINGS[i] == o.name for i, o in zip(said, others, strict=True)) > 54
    seen_colors = torch.stack([o.colors for o in others if o.colors is not None])
    shown = torch.cdist(tokens.color(2 * seen_colors - 1), colors).argmin(dim=1).tolist()
    assert [COLORS[i] for i in shown] == ["red" if i % 2 else "blue" for i in range(60)]
    assert torch.equal(
        tokens.numbers.weight[0], word_embeddings(["one"], byte_tokenizer(), embedding)[0]
    )
    assert all(p.grad is None for p in tokens.parameters())


def test_a_name_that_is_not_is_never_said() -> None:
    tokens, _ = begun(seen(60, 0), [])
    head = tokens.name.head
    assert isinstance(head, torch.nn.Linear)
    assert float(head.bias[3:].detach().max()) < NEVER / 2


def test_without_descriptions_colours_stay_as_they_are() -> None:
    plain = [SeenObject(o.feature, o.colors, o.label, o.name, None) for o in seen(60, 0)]
    tokens, report = begun(plain, plain)
    assert report.colored is None
    torch.manual_seed(0)
    untouched = ObjectTokens(8, 16, 1.0)
    first = next(untouched.color.head.parameters())
    assert torch.equal(next(tokens.color.head.parameters()), first)


def test_without_any_object_only_the_words_are_set() -> None:
    _, report = begun([], [])
    assert report == BridgeReport(0, 0.0, None)
