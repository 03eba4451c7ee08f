"""The furniture library: splits, keys and attribution."""

from collections import Counter
from pathlib import Path

import pytest
from furniture_fake import (
    box,
    item,
    numbered_box,
    write_library,
    write_many,
    write_sh3f,
)

from o2s.datasets.furniture import SPLITS, FurnitureLibrary
from o2s.errors import InputError


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 20, 60])
def test_every_split_has_its_share(tmp_path: Path, count: int) -> None:
    library = write_many(tmp_path / "a.sh3f", {"Chair": range(count)})
    counts = Counter(piece.split for piece in library.pieces)
    assert counts["train"] == pytest.approx(0.7 * count, abs=0.5)
    assert 0 <= counts["test"] - counts["val"] <= 1
    assert counts["test"] >= (count >= 2)
    for split in SPLITS:
        pieces = library.of_class("chair", split)
        assert len(pieces) == counts[split]
        assert all(piece.split == split for piece in pieces)


def test_the_split_depends_on_what_the_models_are_and_not_on_their_names(tmp_path: Path) -> None:
    library = write_many(tmp_path / "a.sh3f", {"Chair": range(20)})
    turned = write_many(tmp_path / "b.sh3f", {"Armchair": range(19, -1, -1)})
    by_number = {piece.key.removeprefix("a/Chair"): piece.split for piece in library.pieces}
    assert by_number == {p.key.removeprefix("b/Armchair"): p.split for p in turned.pieces}
    # beds have the same models as half of the chairs, and come first by name
    both = write_many(tmp_path / "c.sh3f", {"Chair": range(20), "Bed": range(10)})
    splits: dict[str, set[str]] = {}
    for piece in both.pieces:
        splits.setdefault(piece.key.removeprefix("c/").strip("BedChair"), set()).add(piece.split)
    assert all(len(found) == 1 for found in splits.values())
    assert Counter(p.split for p in both.pieces if p.label == "bed")["train"] == 7


def test_a_key_stands_for_one_piece(tmp_path: Path) -> None:
    items = [item("Chair", "/a.obj"), item("Stool", "/a.obj"), item("Bed", "/a.obj", id="")]
    library = FurnitureLibrary.open(write_sh3f(tmp_path / "x.sh3f", items, {"a.obj": box()}))
    assert [piece.key for piece in library.pieces] == ["x/a", "x/a-2", "x/3"]
    items = [item("Chair", f"/{name}.obj") for name in ("a", "b", "a-2")]
    items[1]["id"] = items[0]["id"]
    files = {f"{name}.obj": numbered_box(i) for i, name in enumerate(("a", "b", "a-2"))}
    library = FurnitureLibrary.open(write_sh3f(tmp_path / "y.sh3f", items, files))
    assert [piece.key for piece in library.pieces] == ["y/a", "y/a-2", "y/a-2-2"]


def test_a_model_that_is_held_out_is_in_no_other_library_for_train(tmp_path: Path) -> None:
    main = write_many(tmp_path / "a.sh3f", {"Chair": range(20)})
    other = write_many(tmp_path / "b.sh3f", {"Stool": range(15, 25)})
    both = main.with_train(other)
    held_out = {piece.digest for piece in main.pieces if piece.split != "train"}
    joined = [piece for piece in both.pieces if piece.library]
    assert {piece.digest for piece in joined} == {p.digest for p in other.pieces} - held_out
    assert 5 <= len(joined) < 10
    left_out = {piece.key for piece in other.pieces} - {piece.key for piece in joined}
    assert left_out == both.skipped.keys()
    assert all("which is held out" in both.skipped[key] for key in left_out)


def test_an_unknown_class_or_split_is_named(tmp_path: Path) -> None:
    library = FurnitureLibrary.open(write_library(tmp_path / "Test.sh3f"))
    with pytest.raises(InputError, match=r"^'couch' is none of .*chair, "):
        library.of_class("couch", "train")
    with pytest.raises(InputError, match=r"^'dev' is none of train, val, test$"):
        library.of_class("chair", "dev")


def test_the_attribution_names_every_piece_used(tmp_path: Path) -> None:
    library = FurnitureLibrary.open(write_library(tmp_path / "Test.sh3f"))
    text = library.attribution()
    assert "From Test, 2, example.org:" in text
    for piece in library.pieces:
        (line,) = [line for line in text.splitlines() if f"({piece.key})" in line]
        assert piece.name in line
        assert piece.creator in line
        assert piece.licence in line
    assert "Test/fridge" not in library.attribution(library.pieces[:1])
