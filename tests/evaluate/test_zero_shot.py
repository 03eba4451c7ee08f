"""Zero-shot scores against plain loops; ties, intervals, files, prepared scans, and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import small_encoder_config
from instructions_fake import TRAIN, prepare_scenes
from safetensors.torch import load_file, save_file

from o2s.cli_eval_zero_shot import CutName, Resampled, zero_shot
from o2s.encoder import SceneEncoder
from o2s.errors import InputError
from o2s.evaluate.object_features import (
    ObjectFeatures,
    cut_objects,
    embed_objects,
    read_features,
    write_features,
)
from o2s.evaluate.report import Report
from o2s.evaluate.text_embeddings import TextEmbeddings, write_text_embeddings
from o2s.evaluate.zero_shot import TOP, rank_classes, score_zero_shot
from o2s.io.labelled import labelled_scene, read_labelled
from o2s.regions import RegionConfig

NAMES = tuple(f"class {i}" for i in range(9))


def make_objects(count: int = 200, **changes: Any) -> ObjectFeatures:
    """Features near those of their classes; class 4 has no objects, class 0 has most."""
    rng = np.random.default_rng(0)
    targets = torch.from_numpy(rng.choice([0, 0, 0, 1, 2, 3, 5, 6, 7, 8], count))
    noise = torch.from_numpy(rng.normal(0, 1.2, (count, 12))).float()
    features = make_text().vectors()[targets] * 3 + noise
    return ObjectFeatures(**({"features": features, "targets": targets, "source": "f"} | changes))


def make_text(names: tuple[str, ...] = NAMES, width: int = 12) -> TextEmbeddings:
    rng = np.random.default_rng(1)
    embeddings = torch.from_numpy(rng.normal(size=(len(names), 3, width))).float()
    return TextEmbeddings(names, (), embeddings, "t")


def scores(report: Report, table: str, row: str) -> dict[str, Any]:
    entries = report.json()["tables"][table][row]["scores"]
    return {name: score["value"] for name, score in entries.items()}


def plain_hits(objects: ObjectFeatures, text: TextEmbeddings) -> list[tuple[int, int, list[bool]]]:
    """True class, first class and what is right in top-1, -3, -5, object by object."""
    found = []
    vectors = text.vectors().numpy()
    for feature, target in zip(objects.features.numpy(), objects.targets.tolist(), strict=True):
        cosines = [float(v @ feature / np.linalg.norm(feature)) for v in vectors]
        order = sorted(range(len(cosines)), key=lambda c: (-cosines[c], c))
        found.append((target, order[0], [target in order[:k] for k in TOP]))
    return found


def test_scores_equal_plain_loops():
    objects, text = make_objects(), make_text()
    report, confusion = score_zero_shot(objects, text, draws=0)
    expected = plain_hits(objects, text)
    for i, k in enumerate(TOP):
        name = f"top-{k}"
        micro = sum(hits[i] for _, _, hits in expected) / len(expected)
        per_class = {}
        for c, label in enumerate(NAMES):
            of_class = [hits[i] for target, _, hits in expected if target == c]
            if of_class:
                per_class[label] = sum(of_class) / len(of_class)
                assert scores(report, "per class", label)[name] == pytest.approx(per_class[label])
        macro = sum(per_class.values()) / len(per_class)
        assert scores(report, "all", "micro")[name] == pytest.approx(micro)
        assert scores(report, "all", "macro")[name] == pytest.approx(macro)
        assert scores(report, "all", "chance")[name] == pytest.approx(k / 9)
        assert abs(macro - micro) > 1e-4 or micro > 0.95
    for target in range(9):
        for first in range(9):
            count = sum((t, f) == (target, first) for t, f, _ in expected)
            assert confusion[target, first] == count


def test_the_most_frequent_confusions_are_named_with_their_share():
    report, confusion = score_zero_shot(make_objects(), make_text(), draws=0)
    table = report.json()["tables"]["most frequent confusions"]
    counts = [row["counts"]["objects"] for row in table.values()]
    wrong = confusion - np.diag(np.diag(confusion))
    assert counts == sorted(wrong[wrong > 0].tolist(), reverse=True)[:20]
    for name, row in table.items():
        true, taken = (NAMES.index(part) for part in name.split(" taken for "))
        assert row["counts"]["objects"] == wrong[true, taken]
        share = row["scores"]["share of the class"]["value"]
        assert share == pytest.approx(wrong[true, taken] / confusion[true].sum())


def test_a_class_without_objects_is_noted_and_counts_nowhere_in_macro():
    report, confusion = score_zero_shot(make_objects(), make_text(), draws=0)
    assert confusion[4].sum() == 0
    assert "class 4" not in report.json()["tables"]["per class"]
    assert report.json()["tables"]["all"]["macro"]["counts"] == {"objects": 200, "classes": 8}
    assert any("1 classes have no objects" in n and n.endswith(": class 4") for n in report.notes)


def test_micro_weighs_objects_and_macro_weighs_classes():
    text = TextEmbeddings(("a", "b"), (), torch.eye(2)[:, None], "t")
    features = torch.tensor([[1.0, 0.0]] * 10)
    objects = ObjectFeatures(features, torch.tensor([0] * 9 + [1]), "f")
    report, _ = score_zero_shot(objects, text, draws=0)
    assert scores(report, "all", "micro")["top-1"] == pytest.approx(0.9)
    assert scores(report, "all", "macro")["top-1"] == pytest.approx(0.5)
    assert scores(report, "all", "micro")["top-3"] is None


def test_of_equal_cosines_the_class_of_lower_number_comes_first():
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    features = torch.tensor([[2.0, 0.0]] * 5)
    ranking = rank_classes(features, torch.arange(5), vectors)
    assert ranking.ranks.tolist() == [0, 3, 1, 4, 2]
    assert ranking.predicted.tolist() == [0] * 5
    assert ranking.tied == 5
    text = TextEmbeddings(tuple("abcde"), (), vectors[:, None], "t")
    report, _ = score_zero_shot(ObjectFeatures(features, torch.arange(5), "f"), text, draws=0)
    assert any(
        note.startswith("5 objects: another class has the same cosine") for note in report.notes
    )


def test_lengths_of_features_do_not_matter():
    objects, text = make_objects(), make_text()
    stretched = objects.features * torch.logspace(-3, 3, 200)[:, None]
    ranks = rank_classes(objects.features, objects.targets, text.vectors()).ranks
    assert (rank_classes(stretched, objects.targets, text.vectors()).ranks == ranks).all()


def test_classes_are_matched_by_name_in_any_order():
    objects = make_objects(classes=NAMES)
    report, confusion = score_zero_shot(objects, make_text(), draws=0)
    turned = make_text().select(NAMES[::-1])
    found, same = score_zero_shot(objects, turned, draws=0)
    assert found.json()["tables"] == report.json()["tables"]
    assert (same == confusion).all()
    again, flipped = score_zero_shot(objects, turned, candidates=NAMES[::-1], draws=0)
    assert (flipped[::-1, ::-1] == confusion).all()
    assert scores(again, "all", "macro") == pytest.approx(scores(report, "all", "macro"))


def test_targets_without_names_are_numbers_of_the_embedded_classes():
    pair = [score_zero_shot(make_objects(), make_text(), candidates=c) for c in (None, NAMES[::-1])]
    assert scores(pair[0][0], "all", "macro") == pytest.approx(scores(pair[1][0], "all", "macro"))


def test_candidates_beside_the_objects_classes_distract():
    objects = make_objects(classes=NAMES)
    more = make_text((*NAMES, *(f"other {i}" for i in range(30))))
    few, _ = score_zero_shot(objects, more, draws=0)
    many, confusion = score_zero_shot(objects, more, candidates=more.classes, draws=0)
    assert confusion.shape == (39, 39)
    assert scores(many, "all", "micro")["top-1"] < scores(few, "all", "micro")["top-1"]


def test_intervals_are_those_of_drawing_objects_with_replacement():
    objects, text = make_objects(), make_text()
    report, _ = score_zero_shot(objects, text, draws=4000)
    hits = plain_hits(objects, text)
    rng = np.random.default_rng(5)
    micro, macro = [], []
    for _ in range(2000):
        drawn = [hits[i] for i in rng.integers(len(hits), size=len(hits))]
        right: dict[int, list[bool]] = {}
        for target, _first, tops in drawn:
            right.setdefault(target, []).append(tops[0])
        micro.append(np.mean([tops[0] for _, _, tops in drawn]))
        macro.append(np.mean([np.mean(values) for values in right.values()]))
    for row, plain in (("micro", micro), ("macro", macro)):
        found = report.json()["tables"]["all"][row]["scores"]["top-1"]
        np.testing.assert_allclose(
            [found["low"], found["high"]], np.percentile(plain, [2.5, 97.5]), atol=0.012
        )
        assert found["low"] < found["value"] < found["high"]


def test_scenes_are_drawn_whole():
    """Objects of a scene that are all right or all wrong say less than as many single ones."""
    text = TextEmbeddings(("a", "b"), (), torch.eye(2)[:, None], "t")
    features = torch.eye(2)[torch.arange(400) // 20 % 2]
    scenes = tuple(f"scene {i // 20}" for i in range(400))
    objects = ObjectFeatures(features, torch.zeros(400, dtype=torch.int64), "f", scenes=scenes)
    wide = {}
    for resample in ("objects", "scenes"):
        report, _ = score_zero_shot(objects, text, resample=resample)
        found = report.json()["tables"]["all"]["micro"]["scores"]["top-1"]
        wide[resample] = found["high"] - found["low"]
    assert wide["scenes"] == pytest.approx(wide["objects"] * 20**0.5, rel=0.15)


def test_the_same_seed_gives_the_same_report():
    first, _ = score_zero_shot(make_objects(), make_text(), seed=3)
    assert first.json() == score_zero_shot(make_objects(), make_text(), seed=3)[0].json()
    assert first.json() != score_zero_shot(make_objects(), make_text(), seed=4)[0].json()


def test_an_untrained_encoder_is_said_to_be_untrained():
    report, _ = score_zero_shot(make_objects(untrained=("region encoder",)), make_text(), draws=0)
    assert report.notes[0].startswith("untrained: region encoder.")
    assert report.made_from["untrained"] == ["region encoder"]
    assert not score_zero_shot(make_objects(), make_text())[0].made_from["untrained"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"targets": torch.full((200,), 9)}, r"targets\[0\] is 9; expected 0 to 8, for 9 classes"),
        ({"targets": torch.full((200,), -1)}, r"targets\[0\] is -1; expected 0 to 8"),
        ({"features": torch.ones(200, 5)}, "f: embeddings of width 5, and t of width 12"),
        ({"features": torch.zeros(200, 12)}, r"f: features\[0\] is zero; expected a direction"),
        ({"classes": ("sofa", *NAMES[1:])}, "t: no embeddings of the class 'sofa'"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        score_zero_shot(make_objects(**changes), make_text())


def test_objects_of_no_candidate_are_refused():
    with pytest.raises(InputError, match="f: has objects of the class 'class 0', which is none of"):
        score_zero_shot(make_objects(classes=NAMES), make_text(), candidates=NAMES[1:])
    with pytest.raises(InputError, match="does not say which scenes"):
        score_zero_shot(make_objects(), make_text(), resample="scenes")


def test_a_file_of_features_holds_what_was_written(tmp_path: Path):
    objects = make_objects(
        classes=NAMES, scenes=("s",) * 200, untrained=("x",), notes=("n",), made_from={"cut": "b"}
    )
    write_features(objects, tmp_path / "f.safetensors")
    found = read_features(tmp_path / "f.safetensors")
    assert torch.equal(found.features, objects.features)
    assert torch.equal(found.targets, objects.targets)
    for name in ("classes", "scenes", "untrained", "notes", "made_from"):
        assert getattr(found, name) == getattr(objects, name)


ONES, INTS = torch.ones(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    "tensors, facts, message",
    [
        ({"targets": INTS}, {}, "features: missing; expected numbers of"),
        ({"features": ONES.int(), "targets": INTS}, {}, r"features: int32 of shape \[2, 3\]"),
        ({"features": ONES}, {}, r"targets: missing; expected whole numbers of \[2\]"),
        ({"features": ONES, "targets": INTS.float()}, {}, r"targets: float32 of shape \[2\]"),
        ({"features": ONES, "targets": INTS.bool()}, {}, r"targets: bool of shape \[2\]"),
        ({"features": ONES, "targets": INTS[:1]}, {}, r"targets: int64 of shape \[1\]"),
        ({"features": ONES[:0], "targets": INTS[:0]}, {}, "expected at least one object"),
        ({"features": ONES / 0, "targets": INTS}, {}, r"features\[0\] is not finite"),
        ({"features": ONES, "targets": INTS}, {"scenes": ["s"]}, "1 names for 2 objects"),
        ({"features": ONES, "targets": INTS}, {"classes": 5}, "metadata classes: '5'"),
        ({"features": ONES, "targets": INTS}, {"untrained": [5]}, "metadata untrained"),
    ],
)
def test_wrong_features_are_one_line(tmp_path: Path, tensors, facts, message: str):
    path = tmp_path / "f.safetensors"
    save_file(tensors, path, {"o2s": json.dumps(facts)})
    with pytest.raises(InputError, match=message) as error:
        read_features(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_scenes(tmp_path_factory.mktemp("prepared scans"))


@pytest.mark.parametrize("cut", ["boxes", "instances"])
def test_objects_are_cut_out_where_they_stand(scans: Path, cut: Any):
    """The points of each region are those of its object, also in aligned scans off the origin."""
    path = scans / f"{TRAIN[0]}.safetensors"
    scan, scene = read_labelled(path), labelled_scene(path)
    assert scan.objects is not None
    assert scan.instance is not None
    assert np.abs(scan.alignment[:3, 3]).max() > 0.1
    config = RegionConfig(points=4096)
    kept, regions = cut_objects(scene, scan, cut, config, channels=3)
    assert kept.tolist() == list(range(len(scan.objects)))
    xyz = scan.aligned_xyz
    for i, region in zip(kept.tolist(), regions, strict=True):
        low = scan.objects.boxes[i, :3] - scan.objects.boxes[i, 3:] / 2 - 1e-5
        high = scan.objects.boxes[i, :3] + scan.objects.boxes[i, 3:] / 2 + 1e-5
        inside = np.all((xyz >= low) & (xyz <= high), axis=1)
        mine = np.isin(scan.instance, scan.objects.ids[i])
        assert inside[mine].all()
        own = xyz[mine if cut == "instances" else inside]
        size = np.ptp(own, axis=0)
        shape = np.ptp(region.numpy(), axis=0)
        np.testing.assert_allclose(shape / shape.max(), size / size.max(), atol=2e-3)


def test_embeddings_are_those_of_the_region_encoder(scans: Path):
    path = scans / f"{TRAIN[0]}.safetensors"
    scan, scene = read_labelled(path), labelled_scene(path)
    encoder = SceneEncoder.build(small_encoder_config())
    config, channels = encoder.config.regions, encoder.point_bert.config.channels
    kept, features = embed_objects(scene, scan, encoder, "boxes")
    _, points = cut_objects(scene, scan, "boxes", config, channels=channels)
    assert len(kept) == len(features) == len(points)
    for feature, region in zip(features, points, strict=True):
        with torch.no_grad():
            expected = encoder.point_bert.embed(region[None])[0]
        torch.testing.assert_close(feature, expected, atol=1e-5, rtol=1e-4)


def test_objects_of_too_few_points_are_left_out(scans: Path):
    path = scans / f"{TRAIN[0]}.safetensors"
    scan, scene = read_labelled(path), labelled_scene(path)
    assert scan.instance is not None
    assert scan.objects is not None
    sizes = [int((scan.instance == i).sum()) for i in scan.objects.ids]
    least = sorted(sizes)[len(sizes) // 2]
    config = RegionConfig(points=16, min_points=least)
    kept, _ = cut_objects(scene, scan, "instances", config, channels=6)
    assert kept.tolist() == [i for i, size in enumerate(sizes) if size >= least]


def write_text(folder: Path, classes: tuple[str, ...], width: int) -> Path:
    path = folder / "text.safetensors"
    write_text_embeddings(make_text(classes, width), path)
    return path


def test_the_command_embeds_scans_scores_them_and_goes_on_after_a_kill(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    classes = tuple(json.loads((scans / "index.json").read_text())["class_names"]["nyu40"][1:])
    options: dict[str, Any] = {
        "scenes": scans,
        "classes": "nyu40",
        "overrides": ["encoder.regions.points=64", "encoder.point_bert_weights=null"],
        "text": write_text(tmp_path, classes, 384),
        "out_folder": tmp_path / "out",
        "json_output": True,
        "threads": 1,
        "device": "cpu",
    }
    zero_shot(**options)
    report = json.loads(capsys.readouterr().out)
    out = tmp_path / "out"
    assert json.loads((out / "scores.json").read_text()) == report
    assert report["notes"][0].startswith("untrained: region encoder.")
    assert (out / "confusion.png").is_file()
    assert (out / "scores.md").read_text().startswith("# Scores: zero-shot")
    objects = read_features(out / "features.safetensors")
    for scene, target in zip(objects.scenes or (), objects.targets.tolist(), strict=True):
        scan = read_labelled(scans / f"{scene}.safetensors")
        assert scan.objects is not None
        assert target + 1 in scan.objects.classes["nyu40"].tolist()

    # As after a kill: one scan is missing, one is damaged. Only these are embedded again.
    stored = sorted((out / "features").iterdir())
    assert len(stored) == 3
    before = (out / "features.safetensors").read_bytes()
    stored[0].unlink()
    stored[1].write_bytes(b"damaged")
    embedded = []

    def watched(scene: Any, *rest: Any) -> Any:
        embedded.append(scene.name)
        return embed_objects(scene, *rest)

    monkeypatch.setattr("o2s.evaluate.object_features.embed_objects", watched)
    zero_shot(**options)
    assert embedded == [path.stem for path in stored[:2]]
    assert json.loads(capsys.readouterr().out) == report
    assert (out / "features.safetensors").read_bytes() == before

    # Another cut is other work; the features alone give the same scores.
    zero_shot(**options | {"cut": CutName.instances, "out_folder": tmp_path / "other"})
    assert len(embedded) == 5
    capsys.readouterr()
    zero_shot(out / "features.safetensors", text=options["text"], json_output=True, threads=1)
    again = json.loads(capsys.readouterr().out)
    assert again["tables"] == report["tables"]
    assert again["notes"] == report["notes"]
    assert again["made_from"]["objects"]["cut"] == "boxes"
    files = [file["name"] for file in again["made_from"]["files"]]
    assert files == ["features.safetensors", "text.safetensors"]
    assert load_file(out / "features.safetensors")["features"].shape[1] == 384


def test_the_command_prints_tables_and_writes_nothing_unasked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write_features(make_objects(classes=NAMES, scenes=("s",) * 200), tmp_path / "f.safetensors")
    text = write_text(tmp_path, NAMES, 12)
    there = set(tmp_path.iterdir())
    zero_shot(tmp_path / "f.safetensors", text=text, resample=Resampled.scenes, threads=1)
    assert "most frequent confusions" in capsys.readouterr().out
    assert set(tmp_path.iterdir()) == there


def test_scans_without_the_class_list_or_the_width_are_refused_before_the_work(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("o2s.evaluate.object_features.embed_objects", None)
    with pytest.raises(InputError, match="no class list 'lvis'; there are nyu40, "):
        zero_shot(scenes=scans, classes="lvis", text=tmp_path, threads=1)
    with pytest.raises(InputError, match="no scans with annotated objects in the split 'test'"):
        zero_shot(scenes=scans, classes="nyu40", text=tmp_path, split="test", threads=1)
    classes = tuple(json.loads((scans / "index.json").read_text())["class_names"]["scannet18"])
    text = write_text(tmp_path, classes, 12)
    with pytest.raises(
        InputError, match=r"region encoder: embeddings of width 384, and .* width 12"
    ):
        zero_shot(scenes=scans, classes="scannet18", text=text, threads=1, device="cpu")
