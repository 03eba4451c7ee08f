"""ULIP's layouts: made-up folders give points with z up, texts and images; mistakes are named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from o2s.datasets.object_files import object_colors, z_up
from o2s.datasets.triplets import TripletSource
from o2s.datasets.ulip import ObjaverseLvis, ShapeNet55, UlipObjaverse, shapenet_texts
from o2s.errors import InputError

CHAIR, LAMP = "03001627", "03636649"
TRAIN = (f"{CHAIR}-1a6f.npy", f"{LAMP}-77c.npy", f"{CHAIR}-2b.npy")
TEST = (f"{LAMP}-0e.npy",)
TAXONOMY = [
    {"synsetId": CHAIR, "name": "chair", "children": ["03376595"], "numInstances": 3},
    {"synsetId": LAMP, "name": "lamp, table  lamp,lamp"},
    {"synsetId": "02691156", "name": "airplane,aeroplane,plane"},
]
UIDS = ("8476c4170df24cf5bbe6967222d1a42d", "f2b1", "00a1")
EXPORT = "/export/3d_vision/objaverse/render_images_split_100"


def points_of(seed: object) -> np.ndarray:
    """A pole along y on a plate: what is high has a large y."""
    generator = np.random.default_rng(list(str(seed).encode()))
    return generator.normal(size=(int(generator.integers(3, 40)), 3)) * (1, 20, 1)


def upright(points: np.ndarray) -> np.ndarray:
    return np.array([(x, -z, y) for x, y, z in points], np.float32)


def png(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)
    return path


@pytest.fixture
def shapenet(tmp_path: Path) -> Path:
    root = tmp_path / "shapenet-55"
    (root / "shapenet_pc").mkdir(parents=True)
    (root / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (root / "test.txt").write_text("\r\n".join(TEST))
    (root / "taxonomy.json").write_text(json.dumps(TAXONOMY))
    for name in (*TRAIN, *TEST):
        np.save(root / "shapenet_pc" / name, points_of(name))
    shape = TRAIN[0].removesuffix(".npy")
    for view in ("r_012", "r_000", "r_000_depth0001", "r_000_normal0001", "x_000"):
        png(root / "rendered_images" / shape / f"{shape}_{view}.png")
    return root


def test_points_are_turned_about_x_without_mirroring() -> None:
    axes = np.eye(3, dtype=np.float32)
    turned = z_up(axes)
    assert np.linalg.det(turned) == 1
    assert turned[1].tolist() == [0, 0, 1]
    assert turned[0].tolist() == [1, 0, 0]


def test_shapes_are_read_with_all_points_and_z_up(shapenet: Path) -> None:
    source: TripletSource = ShapeNet55(shapenet)
    assert len(source) == 3
    assert source.classes == ("chair", "lamp")
    assert not source.metric
    for index, name in enumerate(TRAIN):
        triplet = source[index]
        np.testing.assert_array_equal(triplet.points, upright(points_of(name)))
        assert triplet.colors is None
        assert triplet.label == source.label(index) == ("chair", "lamp", "chair")[index]


def test_all_is_test_and_train_in_the_order_of_ulip(shapenet: Path) -> None:
    assert len(ShapeNet55(shapenet, "test")) == 1
    source = ShapeNet55(shapenet, "all")
    names = [*TEST, *TRAIN]
    assert [source.label(i) for i in range(4)] == ["lamp", "chair", "lamp", "chair"]
    for index, name in enumerate(names):
        np.testing.assert_array_equal(source[index].points, upright(points_of(name)))
    with pytest.raises(IndexError):
        source[4]


def test_images_are_the_rendered_views_of_the_shape(shapenet: Path) -> None:
    shape = TRAIN[0].removesuffix(".npy")
    views = [path.name for path in ShapeNet55(shapenet)[0].images]
    assert views == [f"{shape}_{v}.png" for v in ("r_000", "r_000_depth0001", "r_012")]
    assert all(path.is_file() for path in ShapeNet55(shapenet)[0].images)
    colored = ShapeNet55(shapenet, depth_images=False)[0].images
    assert [path.name for path in colored] == [f"{shape}_{v}.png" for v in ("r_000", "r_012")]
    assert ShapeNet55(shapenet)[1].images == ()


def test_texts_are_the_synonyms_bare_or_in_each_template(shapenet: Path) -> None:
    assert ShapeNet55(shapenet)[1].texts == ("lamp", "table lamp")
    templates = ["a {}.", "{} {x}"]
    texts = ShapeNet55(shapenet, templates=templates)[1].texts
    assert texts[:2] == ("lamp", "table lamp")
    assert texts[2:] == ("a lamp.", "lamp {x}", "a table lamp.", "table lamp {x}")
    assert shapenet_texts("airplane,aeroplane,plane")[0] == "airplane"
    with pytest.raises(ValueError, match="names nothing"):
        shapenet_texts(" , ")


def test_labels_read_no_points(shapenet: Path) -> None:
    for path in (shapenet / "shapenet_pc").iterdir():
        path.write_bytes(b"damaged")
    source = ShapeNet55(shapenet, "all")
    assert [source.label(i) for i in range(4)] == ["lamp", "chair", "lamp", "chair"]
    with pytest.raises(InputError, match=rf"{TEST[0]}: not a \.npy file"):
        source[0]


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("train.txt", None, "train.txt: no such file"),
        ("train.txt", "\n\n", "train.txt: the file is empty"),
        ("train.txt", b"\xff\xfe", "train.txt: not UTF-8"),
        ("train.txt", f"{TRAIN[0]}\n{TRAIN[0]}", "1a6f.npy' comes twice"),
        ("train.txt", f"{CHAIR}-lost.npy", f"shapenet_pc/{CHAIR}-lost.npy: no such file"),
        ("train.txt", "../secret.npy", "'../secret.npy'; expected <synset>-<model>.npy"),
        ("train.txt", "04379243-1.npy", "'04379243-1.npy' is of a synset that is not in"),
        ("test.txt", TRAIN[1], f"'{TRAIN[1]}' is in test.txt too"),
        ("taxonomy.json", None, "taxonomy.json: no such file"),
        ("taxonomy.json", "{", "taxonomy.json: not JSON"),
        ("taxonomy.json", "{}", "taxonomy.json: '{}'; expected ShapeNet's taxonomy"),
        ("taxonomy.json", "[]", "taxonomy.json: '[]'; expected"),
        ("taxonomy.json", "[3]", r"taxonomy.json: [0]: '3'; expected"),
        ("taxonomy.json", '[{"name": "a"}]', "[0].synsetId: missing; expected a text"),
        ("taxonomy.json", '[{"synsetId": "1", "name": 3}]', "[0].name: '3'; expected names"),
        ("taxonomy.json", '[{"synsetId": "1", "name": ", ,"}]', "[0].name: ', ,'; expected"),
        ("taxonomy.json", '[{"name": "a", "name": "b"}]', "the key 'name' comes twice"),
        (
            "taxonomy.json",
            '[{"synsetId": "1", "name": "a"}, {"synsetId": "1", "name": "b"}]',
            "[1].synsetId: '1' comes twice",
        ),
    ],
)
def test_mistakes_of_shapenet_are_named(
    shapenet: Path, file: str, content: str | bytes | None, message: str
) -> None:
    (shapenet / file).unlink()
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (shapenet / file).write_bytes(data)
    with pytest.raises(InputError) as error:
        ShapeNet55(shapenet, "all")
    assert message in str(error.value)
    assert str(shapenet) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values, message",
    [
        (np.zeros((0, 3)), "float64 of shape [0, 3]; expected points"),
        (np.zeros((4, 2)), "float64 of shape [4, 2]; expected points"),
        (np.zeros(3), "float64 of shape [3]; expected points"),
        (np.array([["a", "b", "c"]]), "<U1 of shape [1, 3]; expected points"),
        (np.ones((3, 3), bool), "bool of shape [3, 3]; expected points"),
        (np.array([[0, 0, 0], [0, np.nan, 0]]), "point 1 is not finite"),
        (np.array([[1e300, 0, 0]]), "point 0 is not finite"),
        (np.array([[0, 0, 0], [1e38, 0, 0]]), "point 1 is not finite or too far out"),
    ],
)
def test_points_that_are_none_are_named(shapenet: Path, values: Any, message: str) -> None:
    path = shapenet / "shapenet_pc" / TRAIN[0]
    np.save(path, values)
    with pytest.raises(InputError) as error:
        ShapeNet55(shapenet)[0]
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def test_a_missing_folder_of_points_is_named(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.json").write_text(json.dumps(TAXONOMY))
    with pytest.raises(InputError, match="shapenet_pc: No such file or directory; expected"):
        ShapeNet55(tmp_path)


@pytest.fixture
def objaverse(tmp_path: Path) -> Path:
    root = tmp_path / "ULIP-Objaverse_triplets"
    captions: dict[str, Any] = {
        f"{EXPORT}/{UIDS[0]}/r_000.png": ["a red  chair", "a chair"],
        f"{EXPORT}/{UIDS[1]}/r_000.png": "a dog",
        f"{EXPORT}/{UIDS[0]}/r_030.png": ["a chair", "the back of a chair"],
        UIDS[2]: [],
    }
    for uid in UIDS:
        folder = root / "objaverse_pc_parallel" / uid
        folder.mkdir(parents=True)
        np.savez(folder / f"{uid}_8192.npz", points_of(uid))
    (root / "merged_data.json").write_text(json.dumps(captions))
    for view in ("r_000", "r_030", "r_060"):
        png(root / "render_images_split_100" / UIDS[0] / f"{view}.png")
    return root


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    path = tmp_path / "objaverse_lvis_metadata.json"
    known = {UIDS[0]: "folding_chair", UIDS[2]: "dog", "elsewhere": "cup"}
    path.write_text(json.dumps({"value_to_key_mapping": known, "all_keys": ["cup"]}))
    return path


def test_objects_of_objaverse_have_the_captions_of_all_views(
    objaverse: Path, metadata: Path
) -> None:
    source: TripletSource = UlipObjaverse(objaverse, classes=metadata)
    assert len(source) == 3
    triplets = [source[i] for i in range(3)]
    for uid, triplet in zip(UIDS, triplets, strict=True):
        np.testing.assert_array_equal(triplet.points, upright(points_of(uid)))
    captions = ("folding chair", "a red chair", "a chair", "the back of a chair")
    assert triplets[0].texts == captions
    assert triplets[1].texts == ("a dog",)
    assert triplets[2].texts == ("dog",)
    assert [path.name for path in triplets[0].images] == ["r_000.png", "r_030.png"]
    assert triplets[1].images == ()


def test_objects_without_a_class_are_classes_of_their_own(objaverse: Path, metadata: Path) -> None:
    known, unknown = UlipObjaverse(objaverse, classes=metadata), UlipObjaverse(objaverse)
    assert [known.label(i) for i in range(3)] == ["folding chair", UIDS[1], "dog"]
    assert [unknown.label(i) for i in range(3)] == list(UIDS)
    assert known.classes == tuple(sorted(["folding chair", UIDS[1], "dog"]))
    assert unknown[2].texts == ("an object",)


def test_a_list_chooses_objects_of_objaverse(objaverse: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "uids.txt"
    chosen.write_text(f"{UIDS[2]}\n{UIDS[0]}\n")
    source = UlipObjaverse(objaverse, uids=chosen, images=tmp_path / "none")
    assert [source.label(i) for i in range(len(source))] == [UIDS[2], UIDS[0]]
    assert source[1].images == ()
    chosen.write_text("unknown")
    with pytest.raises(InputError, match=r"uids\.txt: 'unknown' has no captions in"):
        UlipObjaverse(objaverse, uids=chosen)


def test_the_most_points_of_an_object_are_taken(objaverse: Path) -> None:
    folder = objaverse / "objaverse_pc_parallel" / UIDS[0]
    np.savez(folder / f"{UIDS[0]}_10000.npz", points_of("more"))
    triplet = UlipObjaverse(objaverse)[0]
    np.testing.assert_array_equal(triplet.points, upright(points_of("more")))


def test_objects_of_objaverse_may_have_colours(objaverse: Path) -> None:
    points = points_of("coloured")
    rgb = np.linspace(0, 1, 3 * len(points)).reshape(-1, 3)
    folder = objaverse / "objaverse_pc_parallel" / UIDS[0]
    np.savez(folder / f"{UIDS[0]}_10000.npz", np.hstack([points, rgb]))
    colored, plain = UlipObjaverse(objaverse)[0], UlipObjaverse(objaverse)[1]
    np.testing.assert_array_equal(colored.points, upright(points))
    assert colored.colors is not None
    np.testing.assert_allclose(colored.colors, rgb * 255, atol=0.51)
    assert plain.colors is None


def test_mistakes_of_objaverse_are_named(objaverse: Path, metadata: Path) -> None:
    missing = objaverse / "objaverse_pc_parallel" / UIDS[1] / f"{UIDS[1]}_8192.npz"
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing}: no such file"):
        UlipObjaverse(objaverse)[1]
    metadata.write_text('{"value_to_key_mapping": []}')
    with pytest.raises(InputError, match=r"value_to_key_mapping: '\[\]'; expected a mapping"):
        UlipObjaverse(objaverse, classes=metadata)
    captions = objaverse / "merged_data.json"
    for content, message in (
        ('{"a/b/c.png": [3]}', r"'a/b/c\.png'\[0\]: '3'; expected a text"),
        ('{"a/b/c.png": null}', r"'a/b/c\.png'\[0\]: missing; expected a text"),
        ('{"../c.png": ["a"]}', r"'\.\./c\.png': names no object"),
        ("[]", r"merged_data\.json: '\[\]'; expected ULIP-2's captions"),
    ):
        captions.write_text(content)
        with pytest.raises(InputError, match=message):
            UlipObjaverse(objaverse)


@pytest.fixture
def lvis(tmp_path: Path, metadata: Path) -> Path:
    files = {UIDS[0]: "000-000/a.npy", UIDS[2]: "000-001/b.npy"}
    for uid, name in files.items():
        (tmp_path / name).parent.mkdir()
        points = points_of(uid)
        colors = np.linspace(0, 1, points.size).reshape(points.shape)
        held = {"xyz": points, "rgb": colors, "text_feat": [{"original": np.zeros(3)}]}
        np.save(tmp_path / name, np.array(held), allow_pickle=True)
    (tmp_path / "lvis.json").write_text(json.dumps(files))
    return tmp_path


def test_objects_of_objaverse_lvis_have_colours(lvis: Path) -> None:
    source: TripletSource = ObjaverseLvis(lvis)
    assert source.classes == ("dog", "folding chair")
    assert [source.label(i) for i in range(len(source))] == ["folding chair", "dog"]
    triplet = source[0]
    points = points_of(UIDS[0])
    np.testing.assert_array_equal(triplet.points, upright(points))
    assert triplet.colors is not None
    assert triplet.colors.reshape(-1).tolist() == [
        round(255 * value) for value in np.linspace(0, 1, points.size)
    ]
    assert triplet.texts == ("folding chair",)


def test_mistakes_of_objaverse_lvis_are_named(lvis: Path) -> None:
    path = lvis / "000-000" / "a.npy"
    points = points_of(0)
    for held, message in (
        ({"rgb": points}, "xyz: missing; expected points"),
        ({"xyz": points}, "rgb: missing; expected colours"),
        ({"xyz": points, "rgb": points[1:]}, "expected colours as numbers of"),
        ({"xyz": points, "rgb": points * np.inf}, "rgb: not finite"),
        ({"xyz": points, "rgb": -np.abs(points)}, "rgb: negative"),
        (3, "holds no mapping"),
    ):
        np.save(path, np.array(held, object), allow_pickle=True)
        with pytest.raises(InputError, match=message) as error:
            ObjaverseLvis(lvis)[0]
        assert str(error.value).startswith(f"{path}: ")
    (lvis / "lvis.json").write_text('{"unheard": "a.npy"}')
    with pytest.raises(InputError, match=r"lvis\.json: 'unheard': has no class"):
        ObjaverseLvis(lvis)


@pytest.mark.parametrize("full", [1.0, 255.0])
def test_colours_run_to_one_or_to_255(full: float) -> None:
    levels = np.repeat(np.arange(256), 3).reshape(-1, 3)
    colors = object_colors(levels / 255 * full, 256, "here")
    assert (colors == levels).all()
    assert (object_colors(levels.astype(np.uint8), 256, "here") == levels).all()
