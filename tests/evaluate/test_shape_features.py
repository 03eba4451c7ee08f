"""Whole shapes as features: regions, layouts, what is left out, the cache, the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import small_encoder_config
from furniture_fake import write_many

from o2s.cli_eval_zero_shot import CutName, LayoutName, Resampled, SamplingName, zero_shot
from o2s.datasets.triplets import Triplet, TripletSource
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.evaluate.object_features import read_features
from o2s.evaluate.shape_features import LAYOUTS, embed_shapes, open_shapes, shape_region
from o2s.evaluate.text_embeddings import TextEmbeddings, write_text_embeddings
from o2s.ops.sampling import farthest_point_sample
from o2s.point_bert import PointBert
from o2s.regions import GREY, RegionConfig

CONFIG = RegionConfig(points=64)
UNTRAINED = "encoder.point_bert_weights=null"
LABELS = ("chair", "bed", "chair", "lamp", "bed")


class Shapes(TripletSource):
    """Made-up shapes of 40 to 200 points in colour."""

    def __init__(self, metric: bool = True, labels: tuple[str, ...] = LABELS) -> None:
        self.metric, self.labels = metric, labels
        self.classes = tuple(sorted(set(labels)))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Triplet:
        rng = np.random.default_rng(index)
        count = 40 * (index + 1)
        points = rng.normal(size=(count, 3)).astype(np.float32) * (1 + index)
        colors = rng.integers(0, 256, (count, 3)).astype(np.uint8)
        return Triplet(points, colors, self.labels[index], (self.labels[index],))

    def label(self, index: int) -> str:
        return self.labels[index]


def make_encoder() -> SceneEncoder:
    return SceneEncoder.build(small_encoder_config())


def test_a_region_holds_points_of_the_shape_with_their_colours():
    shape = Shapes()[2]
    region = shape_region(shape, CONFIG, channels=6, metric=True).numpy()
    assert region.shape == (64, 6)
    np.testing.assert_allclose(region[:, :3].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(region[:, :3], axis=1).max(), 1, rtol=1e-6)
    assert shape.colors is not None
    rows = [int(np.abs(shape.colors / 255 - color).sum(axis=1).argmin()) for color in region[:, 3:]]
    assert len(set(rows)) == 64
    np.testing.assert_allclose(region[:, 3:], shape.colors[rows] / 255, atol=1e-6)
    chosen = shape.points[rows] - shape.points[rows].mean(axis=0)
    expected = chosen / np.linalg.norm(chosen, axis=1).max()
    np.testing.assert_allclose(region[:, :3], expected, atol=1e-5)


def test_shapes_without_colours_are_grey_and_without_metres_of_unknown_size():
    shape = Triplet(Shapes()[3].points, None, "lamp", ("lamp",))
    known = shape_region(shape, CONFIG, channels=7, metric=True)
    unknown = shape_region(shape, CONFIG, channels=7, metric=False)
    torch.testing.assert_close(known[:, 3:6], torch.full((64, 3), GREY))
    assert (known[:, 6] == known[0, 6]).all()
    assert float(known[0, 6]) > 0.5
    assert (unknown[:, 6] == 0).all()
    assert torch.equal(known[:, :6], unknown[:, :6])
    assert torch.equal(shape_region(shape, CONFIG, channels=6, metric=False), known[:, :6])


def test_the_farthest_points_can_be_taken_and_few_points_are_repeated():
    shape = Shapes()[4]
    rows = farthest_point_sample(torch.from_numpy(shape.points)[None], 64)[0]
    expected = shape.points[rows] - shape.points[rows].mean(axis=0)
    found = shape_region(shape, CONFIG, channels=3, metric=True, sampling="farthest").numpy()
    expected /= np.linalg.norm(expected, axis=1).max()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    few = Shapes()[0]
    both = [shape_region(few, CONFIG, channels=3, metric=True, sampling=s) for s in METHODS]
    assert torch.equal(both[0], both[1])
    assert len(both[0].unique(dim=0)) == 40


METHODS: tuple[Any, ...] = ("random", "farthest")


def test_points_outside_the_box_do_not_belong_to_the_shape():
    rng = np.random.default_rng(0)
    inside = rng.uniform(-1, 1, (64, 3)).astype(np.float32)
    points = np.concatenate([inside, inside + 5])
    box = np.array([0, 0, 0, 2, 2, 2], np.float32)
    region = shape_region(
        Triplet(points, None, "bed", ("bed",), box=box), CONFIG, channels=3, metric=True
    )
    expected = inside - inside.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1).max()
    np.testing.assert_allclose(np.sort(region, axis=0), np.sort(expected, axis=0), atol=1e-5)


def test_features_are_those_of_each_shape_alone_and_targets_its_class():
    encoder, source = make_encoder(), Shapes()
    found = embed_shapes(source, encoder, name="n", untrained=["region encoder", "aggregator"])
    names = ("bed", "chair", "lamp")
    assert found.classes == names
    assert [names[t] for t in found.targets.tolist()] == list(LABELS)
    for i, feature in enumerate(found.features):
        region = shape_region(source[i], CONFIG, channels=6, metric=True, number=i)
        with torch.no_grad():
            alone = encoder.point_bert.embed(region[None])[0]
        torch.testing.assert_close(feature, alone, atol=1e-5, rtol=1e-4)
    assert found.untrained == ("region encoder",)
    assert (found.source, found.scenes, found.notes) == ("n", None, ())
    assert torch.equal(found.features, embed_shapes(source, encoder).features)
    assert not embed_shapes(source, encoder).untrained


def test_shapes_of_other_classes_are_left_out_and_noted():
    encoder = make_encoder()
    whole = embed_shapes(Shapes(), encoder)
    found = embed_shapes(Shapes(), encoder, classes=("sofa", "chair", "lamp"))
    assert found.targets.tolist() == [1, 1, 2]
    assert found.notes == ("2 shapes of other classes were left out: bed",)
    torch.testing.assert_close(found.features, whole.features[[0, 2, 3]], atol=1e-6, rtol=0)
    with pytest.raises(InputError, match=r"n: no shape is of one of the 1 classes; .*'bed, chair"):
        embed_shapes(Shapes(), encoder, name="n", classes=("sofa",))


def test_what_was_embedded_is_not_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("o2s.evaluate.shape_features._STORED", 2)
    embedded = []
    embed = PointBert.embed

    def watched(self: PointBert, points: torch.Tensor) -> torch.Tensor:
        embedded.append(len(points))
        return embed(self, points)

    monkeypatch.setattr(PointBert, "embed", watched)
    encoder = make_encoder()
    first = embed_shapes(Shapes(), encoder, cache=tmp_path)
    assert embedded == [2, 2, 1]
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    files[1].write_bytes(b"damaged")
    again = embed_shapes(Shapes(), encoder, cache=tmp_path)
    assert embedded == [2, 2, 1, 2]
    assert torch.equal(again.features, first.features)
    # Other points, or another encoder, are other work.
    embed_shapes(Shapes(), encoder, cache=tmp_path, sampling="farthest")
    assert len(embedded) > 4
    before = len(embedded)
    other = SceneEncoder.build(small_encoder_config(seed=1))
    found = embed_shapes(Shapes(), other, cache=tmp_path)
    assert len(embedded) == before + 3
    assert not torch.equal(found.features, first.features)


def write_scanobjectnn(path: Path, count: int = 6) -> Path:
    xyz = np.random.default_rng(0).normal(size=(count, 90, 3)).astype(np.float32)
    held = {"xyz": xyz, "label": np.arange(count) % 3}
    np.save(path, np.array(held, object), allow_pickle=True)
    return path


def test_layouts_are_opened_by_name(tmp_path: Path):
    source = open_shapes("scanobjectnn", write_scanobjectnn(tmp_path / "xyz_label.npy"), "test")
    assert source.classes == ("bag", "bin", "box")
    folder = tmp_path / "modelnet"
    (folder / "lamp").mkdir(parents=True)
    for count in (40, 10):
        (folder / f"modelnet{count}_shape_names.txt").write_text("lamp\nbed\n")
        for split in ("train", "test"):
            shape = f"lamp_{count}{split}"
            (folder / f"modelnet{count}_{split}.txt").write_text(f"{shape}\n")
            line = f"{count},{len(split)},3,0,0,1\n"
            (folder / "lamp" / f"{shape}.txt").write_text(line)
    for count in (40, 10):
        for split in ("train", "test"):
            shapes = open_shapes(f"modelnet{count}", folder, split)
            assert len(shapes) == 1
            assert shapes[0].points.tolist() == [[count, -3, len(split)]]
    with pytest.raises(InputError, match="layout modelnet40 has no split 'val'; there is train, t"):
        open_shapes("modelnet40", folder, "val")
    with pytest.raises(InputError, match="expected one of modelnet40, modelnet10, objaverse-lvis"):
        open_shapes("shapenet", folder, "test")
    with pytest.raises(InputError, match=r"lvis_metadata\.json: no such file"):
        open_shapes("objaverse-lvis", folder, "test")
    assert tuple(LAYOUTS) == tuple(LayoutName)


def test_furniture_is_opened_as_whole_surfaces_in_metres(tmp_path: Path):
    pytest.importorskip("embreex")
    names = {"Chair": range(10), "Bed": range(20, 30)}
    library = write_many(tmp_path / "many.sh3f", names)
    calls = []
    source = open_shapes(
        "furniture", tmp_path / "many.sh3f", "test", progress=lambda done, _: calls.append(done)
    )
    pieces = [piece for piece in library.pieces if piece.split == "test"]
    assert len(source) == len(pieces) == len(calls)
    assert source.metric
    assert source.classes == ("bed", "chair")
    assert not source.images(0)
    size = np.ptp(source[0].points, axis=0)
    np.testing.assert_allclose(np.sort(size), [0.6, 0.8, 0.9], atol=0.02)


def write_text(folder: Path, classes: tuple[str, ...], width: int = 384) -> Path:
    embeddings = torch.randn(len(classes), 1, width, generator=torch.Generator().manual_seed(0))
    text = TextEmbeddings(classes, (), embeddings, "t")
    write_text_embeddings(text, folder / "text.safetensors")
    return folder / "text.safetensors"


def test_the_command_scores_whole_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "names.txt").write_text("box\nbag\nsofa\n")
    options: dict[str, Any] = {
        "shapes": write_scanobjectnn(tmp_path / "xyz_label.npy"),
        "layout": LayoutName.scanobjectnn,
        "overrides": ["encoder.regions.points=64", UNTRAINED],
        "text": write_text(tmp_path, ("sofa", "bag", "bin", "box")),
        "out_folder": tmp_path / "out",
        "json_output": True,
        "threads": 1,
        "device": "cpu",
    }
    zero_shot(**options)
    report = json.loads(capsys.readouterr().out)
    assert report["notes"][0].startswith("untrained: region encoder.")
    assert report["tables"]["all"]["micro"]["counts"] == {"objects": 6, "classes": 3}
    made_from = report["made_from"]["objects"]
    assert made_from["layout"] == "scanobjectnn"
    assert (made_from["split"], made_from["points"], made_from["source"]) == (
        "test",
        64,
        "xyz_label.npy",
    )
    kept = read_features(tmp_path / "out" / "features.safetensors")
    assert kept.classes == ("bag", "bin", "box")
    zero_shot(tmp_path / "out" / "features.safetensors", text=options["text"], json_output=True)
    assert json.loads(capsys.readouterr().out)["tables"] == report["tables"]

    options |= {"classes": str(tmp_path / "names.txt"), "sampling": SamplingName.farthest}
    zero_shot(**options)
    report = json.loads(capsys.readouterr().out)
    assert report["tables"]["all"]["micro"]["counts"] == {"objects": 4, "classes": 2}
    assert "2 shapes of other classes were left out: bin" in report["notes"]
    assert report["made_from"]["objects"]["sampling"] == "farthest"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"scenes": Path("s")}, "give either FEATURES or --scenes or --shapes, and only one"),
        ({"cut": CutName.instances}, "--cut and --resample scenes go with scans"),
        ({"resample": Resampled.scenes}, "--cut and --resample scenes go with scans"),
        ({"layout": None}, "give --shapes and --layout together; layouts are modelnet40, "),
        ({"split": "train"}, "the layout scanobjectnn has no split 'train'; there is test"),
        ({"shapes": Path("nothing.npy")}, "nothing.npy: no such file"),
    ],
)
def test_options_of_shapes_that_do_not_fit_are_one_line(
    tmp_path: Path, options: dict[str, Any], message: str
):
    given = {"shapes": tmp_path / "a.npy", "layout": LayoutName.scanobjectnn, "threads": 1}
    with pytest.raises(InputError, match=message) as error:
        zero_shot(**(given | {"text": tmp_path / "t"} | options))
    assert "\n" not in str(error.value)


def test_widths_that_differ_are_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("o2s.evaluate.shape_features.embed_shapes", None)
    with pytest.raises(InputError, match=r"region encoder: embeddings of width 384, and .* 12"):
        zero_shot(
            shapes=write_scanobjectnn(tmp_path / "xyz_label.npy"),
            layout=LayoutName.scanobjectnn,
            overrides=[UNTRAINED],
            text=write_text(tmp_path, ("bag", "bin", "box"), 12),
            threads=1,
            device="cpu",
        )
