"""Towers by config, and the file that keeps their vectors."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from o2s import config, towers
from o2s.errors import InputError
from o2s.towers import (
    CountingTextTower,
    ImageTower,
    TextTower,
    TowersConfig,
    cached_embeddings,
    image_tower,
    small,
    text_tower,
)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"path": "x"}, "small towers bring their own weights"),
        ({"kind": "clip"}, "path is missing, expected where the clip towers are"),
        ({"kind": "slip", "path": ""}, "path is missing"),
        ({"kind": "clip", "path": "x", "tokenizer": "y"}, "tokenizer goes with kind slip"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TowersConfig(**options)
    with pytest.raises(InputError, match=message):
        config.from_dict(options, TowersConfig)


@pytest.mark.parametrize("kind", ["clip", "open_clip", "slip"])
@pytest.mark.parametrize("build", [text_tower, image_tower])
def test_towers_that_are_not_there_are_one_line(
    kind: str, build: Callable[[TowersConfig], object], tmp_path: Path
):
    with pytest.raises(InputError) as error:
        build(config.from_dict({"kind": kind, "path": str(tmp_path / "none")}, TowersConfig))
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_the_small_towers_are_the_default():
    text = text_tower(TowersConfig())
    assert isinstance(text, TextTower)
    assert isinstance(text, CountingTextTower)
    assert (text.width, text.name[:7]) == (384, "minilm:")
    if small.PROJECTION.is_file():
        image = image_tower(TowersConfig())
        assert isinstance(image, ImageTower)
        assert image.width == text.width


class Letters:
    """A tower that counts a text's letters, and how many texts it was given."""

    def __init__(self) -> None:
        self.given: list[str] = []

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        self.given += texts
        rows = [[float(len(text)), float(text.count("a"))] for text in texts]
        return torch.tensor(rows).reshape(-1, 2)


TEXTS = ["banana", "pear", "banana", "", "pear", "fig", "banana"]
EXPECTED = torch.tensor([[6.0, 3], [4, 1], [6, 3], [0, 0], [4, 1], [3, 0], [6, 3]])


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize("keep", [True, False])
def test_each_distinct_item_is_embedded_once(tmp_path: Path, batch: int, keep: bool):
    letters, steps = Letters(), []
    found = cached_embeddings(
        TEXTS,
        str,
        letters,
        "letters",
        tmp_path / "deep" / "cache" if keep else None,
        batch=batch,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert torch.equal(found, EXPECTED)
    assert letters.given == ["banana", "pear", "", "fig"]
    assert steps == sorted(steps)
    assert (steps[0], steps[-1]) == ((0, 4), (4, 4))
    assert len(list(tmp_path.rglob("*.safetensors"))) == keep


def run(cache: Path, texts: Sequence[str], tower: str = "letters") -> list[str]:
    """Embed texts with this cache; which of them were computed."""
    letters = Letters()
    found = cached_embeddings(texts, str, letters, tower, cache)
    assert torch.equal(found, Letters()(texts))
    return letters.given


def test_vectors_are_kept_for_the_next_time(tmp_path: Path):
    assert run(tmp_path, ["pear", "fig"]) == ["pear", "fig"]
    assert run(tmp_path, ["fig", "apple", "pear"]) == ["apple"]
    assert run(tmp_path, ["apple", "pear", "fig"]) == []
    assert len(list(tmp_path.iterdir())) == 1


def test_towers_do_not_share_vectors(tmp_path: Path):
    run(tmp_path, ["pear"])
    assert run(tmp_path, ["pear"], "another tower") == ["pear"]
    assert run(tmp_path, ["pear"]) == []


def test_the_key_tells_items_apart(tmp_path: Path):
    letters = Letters()
    found = cached_embeddings(["aB", "ab", "AB", "c"], str.lower, letters, "letters", tmp_path)
    assert letters.given == ["aB", "c"]
    assert torch.equal(found[0], found[2])


def test_an_odd_text_is_a_key(tmp_path: Path):
    odd = ["\udc80", "a\0", "ä" * 10_000]
    assert run(tmp_path, odd) == odd
    assert run(tmp_path, odd) == []


def test_no_items_have_no_vectors(tmp_path: Path):
    assert cached_embeddings([], str, Letters(), "letters", tmp_path).shape == (0, 0)
    assert not list(tmp_path.iterdir())


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def other_tower(path: Path) -> None:
    save_file(load_file(path), path, {"o2s": '{"tower": "another"}'})


def metadata_that_is_no_json(path: Path) -> None:
    save_file(load_file(path), path, {"o2s": "{"})


def not_finite(path: Path) -> None:
    tensors = load_file(path)
    tensors["vectors"][0, 0] = torch.nan
    save_file(tensors, path, {"o2s": '{"tower": "letters"}'})


def one_key_less(path: Path) -> None:
    tensors = load_file(path)
    tensors["keys"] = tensors["keys"][1:].clone()
    save_file(tensors, path, {"o2s": '{"tower": "letters"}'})


def no_keys(path: Path) -> None:
    save_file({"vectors": torch.zeros(2, 2)}, path, {"o2s": '{"tower": "letters"}'})


@pytest.mark.parametrize(
    "spoil",
    [empty, cut, other_tower, metadata_that_is_no_json, not_finite, one_key_less, no_keys],
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, spoil: Callable[[Path], None]):
    run(tmp_path, ["pear", "fig"])
    (path,) = tmp_path.iterdir()
    spoil(path)
    assert run(tmp_path, ["pear", "fig"]) == ["pear", "fig"]
    assert run(tmp_path, ["pear", "fig"]) == []


def test_a_run_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(towers, "SAVE_EVERY", 4)
    texts = [f"text {i}" for i in range(20)]
    seen: list[int] = []

    def embed(portion: Sequence[str]) -> torch.Tensor:
        seen.append(sum(len(load_file(path)["keys"]) for path in tmp_path.iterdir()))
        if len(seen) == 6:
            raise KeyboardInterrupt
        return Letters()(portion)

    with pytest.raises(KeyboardInterrupt):
        cached_embeddings(texts, str, embed, "letters", tmp_path, batch=3)
    # Written on the way, not at the end alone: a process that is killed cannot write any more.
    assert seen == [0, 0, 6, 6, 12, 12]
    assert run(tmp_path, texts) == texts[15:]


def test_a_tower_that_loses_a_row_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="1 vectors for 2 items"):
        cached_embeddings(["a", "b"], str, lambda texts: torch.ones(1, 2), "broken", tmp_path)


def test_a_cache_that_is_a_file_is_one_line(tmp_path: Path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="cache: is not a folder, expected one for the vectors"):
        run(tmp_path / "cache", ["pear"])
