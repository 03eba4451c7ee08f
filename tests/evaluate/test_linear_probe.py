"""The linear probe against a plain logistic regression; folds, classes by name, the command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from o2s.cli_eval_probe import probe
from o2s.cli_eval_zero_shot import Resampled
from o2s.errors import InputError
from o2s.evaluate.linear_probe import FOLDS, fit_probe, folds_of, score_probe
from o2s.evaluate.object_features import ObjectFeatures, write_features
from o2s.evaluate.report import Report

NAMES = ("bed", "chair", "desk", "lamp", "sofa", "table")
SHARES = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)  # of the classes, for objects that are drawn
FEW = (1.0, 0.1, 0.01)


def make_objects(count: int = 120, seed: int = 0, spread: float = 1.0, **changes: Any):
    """Correlated features of different scales about a mean of their class."""
    means = np.random.default_rng(7).normal(size=(len(NAMES), 8))
    rng = np.random.default_rng(seed)
    targets = np.concatenate([np.arange(6), rng.choice(6, count - 6, p=SHARES)])
    features = (means[targets] + spread * rng.normal(size=(count, 8))) * np.logspace(-2, 2, 8) + 5
    values = {
        "features": torch.from_numpy(features).float(),
        "targets": torch.from_numpy(targets),
        "source": f"objects {seed}",
        "classes": NAMES,
    }
    return ObjectFeatures(**(values | changes))


def plain_probabilities(
    features: np.ndarray, targets: np.ndarray, strength: float, asked: np.ndarray
) -> np.ndarray:
    """Softmax regression by scipy, object by object and with a numerical gradient."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    x, classes = (features - mean) / deviation, int(targets.max()) + 1

    def log_probabilities(flat: np.ndarray, row: np.ndarray) -> np.ndarray:
        weight = flat.reshape(classes, -1)
        scores = weight[:, :-1] @ row + weight[:, -1]
        return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()

    def loss(flat: np.ndarray) -> float:
        lost = [-log_probabilities(flat, row)[t] for row, t in zip(x, targets, strict=True)]
        weight = flat.reshape(classes, -1)[:, :-1]
        return float(np.mean(lost) + strength / 2 * (weight**2).sum())

    start = np.zeros(classes * (x.shape[1] + 1))
    found = minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8}).x
    rows = (asked - mean) / deviation
    return np.exp([log_probabilities(found, row) for row in rows])


@pytest.mark.parametrize("strength", [0.5, 0.01])
def test_probabilities_are_those_of_a_plain_logistic_regression(strength: float):
    objects = make_objects(60)
    features, targets = objects.features[:, :3], objects.targets % 3
    asked = make_objects(20, seed=1).features[:, :3]
    found = fit_probe(features, targets, 3, strength=strength).logits(asked).softmax(dim=1)
    expected = plain_probabilities(
        features.double().numpy(), targets.numpy(), strength, asked.double().numpy()
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert np.ptp(expected) > 0.3


def test_the_fit_ends_where_the_gradient_is_zero_and_the_bias_is_free():
    objects = make_objects()
    probe = fit_probe(objects.features, objects.targets, 6, strength=0.1)
    x = ((objects.features.double() - probe.mean) / probe.scale).numpy()
    wrong = probe.logits(objects.features).softmax(dim=1).numpy() - np.eye(6)[objects.targets]
    np.testing.assert_allclose(wrong.T @ x / len(x) + 0.1 * probe.weight.numpy(), 0, atol=1e-6)
    np.testing.assert_allclose(wrong.mean(axis=0), 0, atol=1e-6)


def test_probabilities_do_not_depend_on_units_offsets_and_constant_features():
    objects, asked = make_objects(), make_objects(seed=1).features
    first = fit_probe(objects.features, objects.targets, 6, strength=0.1)

    def changed(features: torch.Tensor) -> torch.Tensor:
        constant = torch.full((len(features), 2), 0.1, dtype=torch.float64)
        return torch.cat([features.double() * 8 - 3, constant], dim=1)

    second = fit_probe(changed(objects.features), objects.targets, 6, strength=0.1)
    torch.testing.assert_close(
        first.logits(asked).softmax(dim=1),
        second.logits(changed(asked)).softmax(dim=1),
        atol=1e-6,
        rtol=0,
    )
    assert (second.weight[:, -2:].abs() < 1e-9).all()


def test_stronger_regularisation_brings_probabilities_to_the_share_of_each_class():
    objects = make_objects()
    shares = np.bincount(objects.targets.numpy(), minlength=6) / len(objects.targets)
    far = []
    for strength in (1e-3, 1.0, 1e5):
        found = fit_probe(objects.features, objects.targets, 6, strength=strength)
        far.append(np.abs(found.logits(objects.features).softmax(dim=1).numpy() - shares).max())
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-4


def test_more_features_than_objects_are_no_hindrance():
    wide = torch.randn(12, 40, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(12) % 3
    found = fit_probe(wide, targets, 3, strength=0.01)
    assert (found.logits(wide).argmax(dim=1) == targets).all()
    # The weights of the least norm lie in the span of the objects.
    x = (wide.double() - found.mean) / found.scale
    inside = found.weight @ torch.linalg.pinv(x) @ x
    torch.testing.assert_close(inside, found.weight, atol=1e-6, rtol=0)


def scores(report: Report, table: str, row: str) -> dict[str, Any]:
    entries = report.json()["tables"][table][row]["scores"]
    return {name: score["value"] for name, score in entries.items()}


def test_scores_are_shares_of_right_objects():
    train, test = make_objects(), make_objects(90, seed=1)
    found = score_probe(train, test, strengths=[0.1], draws=0)
    order = fit_probe(train.features, train.targets, 6, strength=0.1).logits(test.features)
    order = order.argsort(dim=1, descending=True).tolist()
    pairs = list(zip(test.targets.tolist(), order, strict=True))
    for k in (1, 5):
        right = [t in o[:k] for t, o in pairs]
        per_class = [
            float(np.mean([r for r, (t, _) in zip(right, pairs, strict=True) if t == c]))
            for c in range(6)
        ]
        name = f"top-{k}"
        assert scores(found.report, "all", "micro")[name] == pytest.approx(np.mean(right))
        assert scores(found.report, "all", "macro")[name] == pytest.approx(np.mean(per_class))
        assert scores(found.report, "all", "chance")[name] == pytest.approx(k / 6)
        assert scores(found.report, "per class", "sofa")[name] == pytest.approx(per_class[4])
    assert found.confusion.trace() == sum(o[0] == t for t, o in pairs)
    assert 1 / 6 < scores(found.report, "all", "macro")["top-1"] < 1


def test_the_strength_is_the_best_on_the_validation_objects():
    train, test, val = (make_objects(60 + i, seed=i, spread=2.0) for i in range(3))
    strengths = (10.0, 1.0, 0.1, 0.01, 0.001)
    reached = []
    for strength in strengths:
        fitted = fit_probe(train.features, train.targets, 6, strength=strength, tolerance=1e-4)
        right = (fitted.logits(val.features).argmax(dim=1) == val.targets).numpy()
        own = val.targets.numpy()
        reached.append(np.mean([right[own == c].mean() for c in range(6)]))
    report = score_probe(train, test, val=val, strengths=strengths, draws=0).report
    for strength, value in zip(strengths, reached, strict=True):
        shown = scores(report, "choice of the strength", f"{strength:g}")
        assert shown == {"macro top-1": pytest.approx(value)}
    assert report.made_from["strength"] == strengths[int(np.argmax(reached))]
    assert report.made_from["chosen on"] == "val"
    assert len(set(reached)) > 2


def test_folds_spread_classes_and_keep_scenes_together():
    targets = torch.tensor([0] * 10 + [1] * 25 + [2] * 5)
    fold = folds_of(targets, None, seed=0)
    for c in range(3):
        shares = np.bincount(fold[targets.numpy() == c], minlength=FOLDS)
        assert shares.tolist() == [int((targets == c).sum()) // FOLDS] * FOLDS
    scenes = tuple(f"scene {i % 13}" for i in range(40))
    fold = folds_of(targets, scenes, seed=0)
    for scene in set(scenes):
        assert len({fold[i] for i in range(40) if scenes[i] == scene}) == 1
    sizes = np.bincount(fold, minlength=FOLDS)
    assert np.ptp(sizes) <= max(scenes.count(scene) for scene in set(scenes))
    assert (fold == folds_of(targets, scenes, seed=0)).all()
    assert (fold != folds_of(targets, scenes, seed=1)).any()
    assert set(folds_of(targets, ("a",) * 39 + ("b",), seed=0)) == {0, 1}


def test_scenes_that_give_their_objects_away_do_not_choose_the_strength():
    """Where features tell the scene and little else, folds that split scenes look too good."""
    rng = np.random.default_rng(0)
    scene = np.arange(120) // 6
    features = torch.from_numpy(np.eye(20)[scene] + rng.normal(0, 0.01, (120, 20))).float()
    targets = torch.from_numpy(scene % 4)
    objects = ObjectFeatures(features, targets, "f", classes=NAMES)
    known = replace(objects, scenes=tuple(f"scene {i}" for i in scene))
    reached = {}
    for name, train in (("split", objects), ("whole", known)):
        report = score_probe(train, objects, strengths=[0.01], draws=0).report
        reached[name] = scores(report, "choice of the strength", "0.01")["macro top-1"]
    assert reached["split"] > 0.95
    assert reached["whole"] < 0.5


def test_classes_are_matched_by_name():
    train, test = make_objects(), make_objects(90, seed=1)
    first = score_probe(train, test, strengths=FEW, draws=50)
    order = [3, 5, 0, 1, 4, 2]
    turned = replace(
        test,
        classes=("no objects", *(NAMES[i] for i in order)),
        targets=torch.tensor(np.argsort(order) + 1)[test.targets],
    )
    second = score_probe(train, turned, strengths=FEW, draws=50)
    assert second.report.json()["tables"] == first.report.json()["tables"]
    assert second.classes == first.classes == NAMES


def test_objects_of_classes_that_train_lacks_are_wrong_and_noted():
    train, test = make_objects(), make_objects(90, seed=1)
    kept = train.targets != 4
    fewer = replace(train, features=train.features[kept], targets=train.targets[kept])
    found = score_probe(fewer, test, strengths=FEW, draws=0)
    count = int((test.targets == 4).sum())
    row = found.report.json()["tables"]["per class"]["sofa"]
    assert row["counts"] == {"objects": count}
    assert {score["value"] for score in row["scores"].values()} == {0.0}
    note = f"{count} test objects count as wrong, for train has no objects of their 1 classes: sofa"
    assert note in found.report.notes
    assert found.confusion[:, found.classes.index("sofa")].sum() == 0
    # What is known is told apart as before.
    known = test.targets != 4
    only = replace(test, features=test.features[known], targets=test.targets[known])
    same = score_probe(fewer, only, strengths=FEW, draws=0).report
    for name in set(NAMES) - {"sofa"}:
        assert scores(same, "per class", name) == scores(found.report, "per class", name)


def test_untrained_parts_of_either_file_are_said():
    train, test = make_objects(), make_objects(90, seed=1)
    for i, role in enumerate(("train", "test")):
        given = [train, test]
        given[i] = replace(given[i], untrained=("region encoder",))
        report = score_probe(*given, strengths=[0.1], draws=0).report
        assert report.notes[0].startswith(f"untrained: region encoder of {role}.")
        assert report.made_from["untrained"] == ["region encoder"]
    report = score_probe(train, test, strengths=[0.1], draws=0).report
    assert report.made_from["untrained"] == []
    assert not any("untrained" in note for note in report.notes)


def test_features_of_different_models_are_noted():
    train, test = make_objects(made_from={"model": "a"}), make_objects(90, 1, made_from={})
    report = score_probe(train, test, strengths=[0.1], draws=0).report
    assert any(note.startswith("the files name different models") for note in report.notes)
    same = replace(test, made_from={"model": "a", "split": "test"})
    assert not score_probe(train, same, strengths=[0.1], draws=0).report.notes


@pytest.mark.parametrize("weights, noted", [("1", False), ("2", True), (None, False)])
def test_features_of_weights_that_have_changed_are_noted(weights: str | None, noted: bool):
    told = {} if weights is None else {"weights": weights}
    train = make_objects(made_from={"model": "tiny", "weights": "1"})
    test = make_objects(90, 1, made_from={"model": "tiny", **told})
    report = score_probe(train, test, strengths=[0.1], draws=0).report
    assert any("different models" in note for note in report.notes) == noted


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"classes": None}, "objects 1: metadata classes: missing; expected the names"),
        ({"features": torch.ones(120, 5)}, "features of width 5, and objects 0 of width 8"),
        ({"targets": torch.full((120,), 6)}, r"targets\[0\] is 6; expected 0 to 5, for 6 classes"),
        ({"targets": torch.full((120,), -1)}, r"targets\[0\] is -1; expected 0 to 5"),
    ],
)
def test_files_that_do_not_fit_are_one_line(changes: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message) as error:
        score_probe(make_objects(), make_objects(seed=1, **changes), strengths=FEW)
    assert "\n" not in str(error.value)


def test_too_little_to_learn_from_is_one_line():
    test = make_objects(seed=1)
    with pytest.raises(InputError, match="objects 0: objects of one class"):
        score_probe(make_objects(targets=torch.zeros(120, dtype=torch.int64)), test)
    with pytest.raises(InputError, match="objects 0: one scene alone; expected several"):
        score_probe(make_objects(scenes=("s",) * 120), test)
    with pytest.raises(InputError, match="objects 1: does not say which scenes"):
        score_probe(make_objects(), test, resample="scenes")


def test_the_command_writes_the_report_that_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    paths = [tmp_path / f"{name}.safetensors" for name in ("train", "test", "val")]
    for seed, path in enumerate(paths):
        scenes = tuple(f"scene {i % 9}" for i in range(60))
        write_features(make_objects(60, seed, scenes=scenes, untrained=("region encoder",)), path)
    out = tmp_path / "out"
    options: dict[str, Any] = {"draws": 100, "json_output": True, "threads": 1}
    probe(paths[0], paths[1], val=paths[2], out_folder=out, **options)
    report = json.loads(capsys.readouterr().out)
    assert json.loads((out / "scores.json").read_text()) == report
    assert (out / "scores.md").read_text().startswith("# Scores: linear probe")
    assert (out / "confusion.png").is_file()
    assert [file["name"] for file in report["made_from"]["files"]] == [p.name for p in paths]
    there = set(tmp_path.rglob("*"))
    probe(paths[0], paths[1], resample=Resampled.scenes, draws=100, threads=1)
    printed = capsys.readouterr().out
    assert "choice of the strength" in printed
    assert "note: untrained: region encoder of train." in printed
    assert set(tmp_path.rglob("*")) == there
