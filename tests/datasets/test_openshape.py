"""OpenShape's files: points, colours, texts and features of made-up objects; mistakes are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from o2s.datasets.openshape import SCANOBJECTNN, OpenShape, ScanObjectNN
from o2s.datasets.triplets import TripletSource
from o2s.errors import InputError

WIDTH = 5
TITLE, OTHER, BLIP, ALIKE = "Old chair", "furniture", "a wooden chair", "chair on white"


def feature(of: str) -> np.ndarray:
    return np.random.default_rng(list(of.encode())).normal(size=WIDTH).astype(np.float32)


def both(of: str) -> dict[str, np.ndarray]:
    return {"original": feature(of)[None], "prompt_avg": feature(of + "!")}


def made(**changes: Any) -> dict[str, Any]:
    xyz = np.random.default_rng(1).uniform(-1, 1, (7, 3))
    held: dict[str, Any] = {
        "dataset": "Objaverse",
        "xyz": xyz,
        "rgb": np.abs(xyz).astype(np.float32),
        "image_feat": np.stack([feature("view 0"), feature("view 1")]),
        "thumbnail_feat": feature("thumbnail"),
        "text": [TITLE, OTHER],
        "text_feat": [both(TITLE), both(OTHER)],
        "blip_caption": BLIP,
        "blip_caption_feat": both(BLIP),
        "msft_caption": "",
        "msft_caption_feat": {},
        "retrieval_text": [ALIKE, BLIP],
        "retrieval_text_feat": [both(ALIKE), both(BLIP)],
    }
    return {key: value for key, value in (held | changes).items() if value is not None}


def save(root: Path, name: str, held: Any) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(held, object), allow_pickle=True)
    return path


def split(root: Path, entries: Any) -> Path:
    path = root / "train_all.json"
    path.write_text(json.dumps(entries))
    return path


def entry(name: str = "a", dataset: str = "Objaverse", **more: Any) -> dict[str, Any]:
    path = f"/mnt/data/{dataset}/000-000/{name}.npy"
    return {"dataset": dataset, "group": "000-000", "id": name, "data_path": path} | more


def test_points_have_z_up_and_colours(tmp_path: Path) -> None:
    held = made()
    save(tmp_path, "Objaverse/000-000/a.npy", held)
    source: TripletSource = OpenShape(tmp_path, split(tmp_path, [entry()]))
    triplet = source[0]
    expected = [(x, -z, y) for x, y, z in held["xyz"]]
    np.testing.assert_array_equal(triplet.points, np.array(expected, np.float32))
    assert triplet.colors is not None
    assert triplet.colors.tolist() == np.rint(held["rgb"] * 255).tolist()
    assert triplet.images == ()
    assert not source.metric


def test_texts_are_those_that_openshape_may_draw(tmp_path: Path) -> None:
    save(tmp_path, "000-000/a.npy", made())
    save(tmp_path, "ShapeNet/000-000/b.npy", made())
    entries = [entry(), entry("b", "ShapeNet"), entry("c", category="folding_chair")]
    save(tmp_path, "c.npy", made())
    source = OpenShape(tmp_path, split(tmp_path, entries))
    assert source[0].texts == (TITLE, BLIP, ALIKE)  # of Objaverse the title alone
    assert source[1].texts == (TITLE, OTHER, BLIP, ALIKE)
    assert source[2].texts == ("folding chair", TITLE, BLIP, ALIKE)
    flags = tmp_path / "gpt4_filtering.json"
    flags.write_text('{"a": {"flag": "N"}, "b": {"flag": "N"}, "c": {"flag": "Y"}}')
    filtered = OpenShape(tmp_path, split(tmp_path, entries), filtering=flags)
    assert filtered[0].texts == (BLIP, ALIKE)
    assert filtered[1].texts == source[1].texts
    assert filtered[2].texts == source[2].texts


def test_an_object_without_texts_is_an_object(tmp_path: Path) -> None:
    save(tmp_path, "a.npy", made(text=[], blip_caption=" ", retrieval_text=None))
    assert OpenShape(tmp_path, split(tmp_path, [entry()]))[0].texts == ("an object",)


def test_labels_are_categories_or_ids_and_read_no_files(tmp_path: Path) -> None:
    entries = [entry("a", category="dog_house"), entry("b")]
    source = OpenShape(tmp_path, split(tmp_path, entries))
    assert [source.label(i) for i in range(len(source))] == ["dog house", "b"]
    assert source.classes == ("b", "dog house")
    lvis = [{"uid": "a", "category": "dog", "group": "g", "data_path": "g/a.npy"}]
    assert OpenShape(tmp_path, split(tmp_path, lvis)).label(0) == "dog"
    with pytest.raises(InputError, match=f"{tmp_path / 'b.npy'}: no such file, nor one of /mnt"):
        source[1]


def test_the_longest_part_of_a_path_that_is_there_is_read(tmp_path: Path) -> None:
    save(tmp_path, "a.npy", made(text=["short"]))
    save(tmp_path, "Objaverse/000-000/a.npy", made(text=["long"]))
    assert OpenShape(tmp_path, split(tmp_path, [entry()]))[0].texts[0] == "long"


def test_features_belong_to_the_texts_and_images(tmp_path: Path) -> None:
    save(tmp_path, "a.npy", made())
    source = OpenShape(tmp_path, split(tmp_path, [entry()]))
    features = source.features(0)
    assert features.texts == source[0].texts == (TITLE, BLIP, ALIKE)
    for text, row in zip(features.texts, features.text_features, strict=True):
        np.testing.assert_array_equal(row, feature(text))
    for of, row in zip(("view 0", "view 1", "thumbnail"), features.images, strict=True):
        np.testing.assert_array_equal(row, feature(of))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"image_feat": None}, "image_feat: missing or no finite numbers"),
        ({"image_feat": np.full((2, WIDTH), np.nan)}, "image_feat: missing or no finite"),
        ({"image_feat": np.zeros((2, WIDTH + 1))}, "features of several widths"),
        ({"text_feat": []}, "text_feat: missing or no finite numbers"),
        ({"blip_caption_feat": {"prompt_avg": feature("a")}}, "blip_caption_feat: missing"),
    ],
)
def test_features_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = save(tmp_path, "a.npy", made(**changes))
    with pytest.raises(InputError) as error:
        OpenShape(tmp_path, split(tmp_path, [entry()])).features(0)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "held, message",
    [
        (3, "holds no mapping"),
        (made(xyz=None), "xyz: missing; expected points"),
        (made(rgb=np.zeros((2, 3))), "rgb: float64 of shape"),
        (made(text=[3]), "text: '3'; expected texts"),
    ],
)
def test_mistakes_of_an_object_are_named(tmp_path: Path, held: Any, message: str) -> None:
    path = save(tmp_path, "a.npy", held)
    with pytest.raises(InputError) as error:
        OpenShape(tmp_path, split(tmp_path, [entry()]))[0]
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    "entries, message",
    [
        ([], r"'\[\]'; expected a list of objects"),
        (["a"], r"\[0\]: 'a'; expected a list of objects"),
        ([{"data_path": "a"}], r"\[0\]\.id: missing"),
        ([{"id": "a"}], r"\[0\]\.data_path: missing"),
        ([entry(category=3)], r"\[0\]\.category: '3'"),
        ([entry(), entry()], r"the id 'a' comes twice"),
    ],
)
def test_mistakes_of_a_split_are_named(tmp_path: Path, entries: Any, message: str) -> None:
    with pytest.raises(InputError, match=rf"train_all\.json: {message}"):
        OpenShape(tmp_path, split(tmp_path, entries))


def test_scanobjectnn_has_fifteen_classes_by_number(tmp_path: Path) -> None:
    xyz = np.random.default_rng(2).normal(size=(3, 4, 3)).astype(np.float32)
    for held in (
        {"xyz": xyz, "label": np.array([14, 0, 4])},
        {"xyz": list(xyz), "label": [14, 0, 4]},
    ):
        source: TripletSource = ScanObjectNN(save(tmp_path, "xyz_label.npy", held))
        assert [source.label(i) for i in range(len(source))] == ["toilet", "bag", "chair"]
        assert source.classes == ("bag", "chair", "toilet")
        for index, points in enumerate(xyz):
            expected = np.array([(x, -z, y) for x, y, z in points])
            np.testing.assert_array_equal(source[index].points, expected)
            assert source[index].texts == (source.label(index),)
    assert len(set(SCANOBJECTNN)) == 15


@pytest.mark.parametrize(
    "held, message",
    [
        ([1], "xyz is no array"),
        ({"label": np.array([1])}, "xyz is no array"),
        ({"xyz": np.zeros((0, 4, 3)), "label": np.zeros(0, int)}, "xyz is no array"),
        ({"xyz": [np.zeros((1, 3)), np.zeros((2, 3))], "label": [1, 2]}, "xyz is no array"),
        ({"xyz": np.zeros((2, 4, 3)), "label": np.array([1])}, "label is no whole number"),
        ({"xyz": np.zeros((1, 4, 3)), "label": np.array([0.5])}, "label is no whole number"),
        ({"xyz": np.zeros((1, 4, 3)), "label": np.array([15])}, "label: expected numbers below 15"),
    ],
)
def test_mistakes_of_scanobjectnn_are_named(tmp_path: Path, held: Any, message: str) -> None:
    path = save(tmp_path, "xyz_label.npy", held)
    with pytest.raises(InputError) as error:
        ScanObjectNN(path)
    assert str(error.value).startswith(f"{path}: {message}")
