"""Training of a detector on made-up scans, from a recipe to a folder and back."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scannet_fake import write_download

from o2s import config
from o2s.datasets.preparation import prepare
from o2s.datasets.scannet import ScanNet
from o2s.detect.detr3d import Detr3d
from o2s.detect.detr3d_loss import SetLossConfig
from o2s.detect.tr3d import SCANNET, Tr3d, Tr3dConfig
from o2s.detector_weights import read_detector
from o2s.errors import InputError
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.io.labelled import labelled_scene
from o2s.scene import Boxes
from o2s.train import detector_run
from o2s.train.detector_recipe import DetectorRecipe, build
from o2s.train.detector_run import train_detector
from o2s.train.detector_scans import DetectorScans, sizes_of_classes
from o2s.train.detectors import DetectorModel, collate, predicted, scores, true

SIZE = ["tr3d.voxel=0.2", "tr3d.stem_width=8", "tr3d.blocks=[1, 1, 1, 1]"]
SIZE += ["tr3d.widths=[8, 8, 16, 16]", "tr3d.neck_width=16"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    names = [f"scene000{i}_00" for i in range(6)]
    raw = write_download(folder / "raw", {"train": names[:4], "val": names[4:]}, detail=8)
    prepare(ScanNet(raw), folder / "prepared")
    return folder / "prepared"


@contextlib.contextmanager
def step(what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def recipe(prepared: Path, *overrides: str) -> DetectorRecipe:
    short = ["optimisation.epochs=2", "optimisation.repeats=1", f"data.scenes={prepared}"]
    return config.load("tr3d_tiny", DetectorRecipe, [*short, *SIZE, *overrides])


def scans(prepared: Path, **options: object) -> DetectorScans:
    classes = ("bed", "chair", "table")
    return DetectorScans(prepared, "train", "nyu40", classes, **options)  # pyright: ignore


def test_a_run_leaves_a_detector_and_its_scores(prepared: Path, tmp_path: Path) -> None:
    found = train_detector(recipe(prepared), tmp_path / "run", step)
    assert set(found) == {"map", "ap25", "ap50", "recall"}
    assert json.loads((tmp_path / "run" / detector_run.SCORES).read_bytes())["val"] == found
    detector, facts = read_detector(tmp_path / "run" / detector_run.DETECTOR)
    assert not detector.needs_training
    assert not {"wall", "floor", "unannotated"} & set(detector.classes)
    assert facts["scores"]["val"] == found
    assert "data" not in facts["recipe"]
    scan = next(prepared.glob("*.safetensors"))
    assert set(detector(labelled_scene(scan)).labels) <= set(detector.classes)


def test_a_detector_learns_where_things_are(prepared: Path, tmp_path: Path) -> None:
    options = ["optimisation.epochs=30", "optimisation.learning_rate=5e-3"]
    made = recipe(prepared, *options, "augment.keep=[1.0, 1.0]")
    train_detector(made, tmp_path / "run", step)
    history = json.loads(
        max((tmp_path / "run" / "checkpoints").glob("checkpoint-*/trainer_state.json")).read_bytes()
    )["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < 0.85 * losses[0]


def test_a_killed_run_goes_on_to_the_same_result(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recipe(prepared)
    train_detector(whole, tmp_path / "whole", step)
    scored = detector_run.DetectorTrainer.evaluate

    def dies(self: detector_run.DetectorTrainer, *args: object, **options: object) -> object:
        if (self.state.epoch or 0) >= 2:
            raise KeyboardInterrupt
        return scored(self, *args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(detector_run.DetectorTrainer, "evaluate", dies)
    with pytest.raises(KeyboardInterrupt):
        train_detector(whole, tmp_path / "halved", step)
    monkeypatch.undo()
    train_detector(whole, tmp_path / "halved", step)
    states = [
        read_detector(tmp_path / name / detector_run.DETECTOR)[0].state_dict()
        for name in ("whole", "halved")
    ]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, atol=2e-3, rtol=2e-3, msg=name)


@pytest.mark.slow
def test_two_processes_share_the_work(prepared: Path, tmp_path: Path) -> None:
    options = [word for o in ("optimisation.epochs=1", *SIZE) for word in ("--set", o)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "o2s"]
    command += ["train", "detector", "--config", "tr3d_tiny", "--out", str(tmp_path / "run")]
    command += ["--set", f"data.scenes={prepared}", "--set", "optimisation.repeats=1", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    state = json.loads(
        next((tmp_path / "run").glob("checkpoints/*/trainer_state.json")).read_bytes()
    )
    assert state["global_step"] == 1  # four scans, two processes of two
    assert (tmp_path / "run" / detector_run.DETECTOR).is_file()


def test_a_folder_of_another_recipe_is_refused(prepared: Path, tmp_path: Path) -> None:
    train_detector(recipe(prepared, "optimisation.epochs=1"), tmp_path / "run", step)
    with pytest.raises(InputError, match=r"its optimisation differ"):
        train_detector(recipe(prepared), tmp_path / "run", step)


def test_a_class_list_that_is_not_there_is_refused(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no class list foo, expected one of .*nyu40"):
        train_detector(recipe(prepared, "data.classes=foo"), tmp_path / "run", step)


def test_a_scan_comes_with_its_objects_of_the_classes(prepared: Path) -> None:
    dataset = scans(prepared)
    assert len(dataset) == 4
    for example in (dataset[i] for i in range(4)):
        assert len(example.boxes) == len(example.labels)
        assert example.points.mean(dim=0).abs().max() < 1e-4
        inside = (example.points[None] - example.boxes[:, None, :3]).abs()
        inside = (inside <= example.boxes[:, None, 3:6] / 2 + 1e-4).all(dim=2)
        assert (inside.sum(dim=1) > 10).all()
    assert sum(len(dataset[i].boxes) for i in range(4)) > 3


def test_changes_depend_on_seed_epoch_and_number_alone(prepared: Path) -> None:
    augment = recipe(prepared).augment
    dataset = scans(prepared, augment=augment, repeats=2)
    assert len(dataset) == 8
    once = dataset[1].points
    assert torch.equal(scans(prepared, augment=augment, repeats=2)[1].points, once)
    assert len(dataset[5].points) != len(once)
    dataset.set_epoch(1)
    assert len(dataset[1].points) != len(once)


def test_what_is_true_scores_in_full_and_what_is_wrong_does_not(prepared: Path) -> None:
    dataset = scans(prepared)
    names = ("bed", "chair", "table")
    truth = [true(dataset[i], names) for i in range(4)]
    right = [predicted_of(boxes) for boxes in truth]
    assert scores(right, truth, names) == {"map": 1, "ap25": 1, "ap50": 1, "recall": 1}
    moved = [predicted_of(boxes, move=5.0) for boxes in truth]
    assert scores(moved, truth, names) == {"map": 0, "ap25": 0, "ap50": 0, "recall": 0}


def predicted_of(boxes: TrueBoxes, move: float = 0.0) -> PredictedBoxes:
    rows = torch.from_numpy(boxes.boxes).float()
    found = Boxes(rows[:, :3] + move, rows[:, 3:6], rows[:, 6], torch.ones(len(rows)), boxes.labels)
    return predicted(boxes.scene_id, found)


def test_a_batch_gives_the_losses_of_its_scans(prepared: Path) -> None:
    torch.manual_seed(0)
    detector = build(recipe(prepared), {"chair": np.array([0.5]), "bed": np.array([2.0])})
    model = DetectorModel(detector, SetLossConfig()).eval()
    dataset = DetectorScans(prepared, "train", "nyu40", detector.classes)
    both = model(**collate([dataset[0], dataset[1]]))
    assert set(both) == {"loss", "box", "class"}
    torch.testing.assert_close(both["loss"], both["box"] + both["class"])
    both["loss"].backward()
    lacking = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not lacking


def test_a_3detr_is_trained_too(prepared: Path, tmp_path: Path) -> None:
    small = ["detector=detr3d", "detr3d.num_points=500", "detr3d.tokens=32", "detr3d.queries=8"]
    small += ["detr3d.width=16", "detr3d.decoder_layers=2", "optimisation.epochs=1"]
    scores = train_detector(recipe(prepared, *small), tmp_path / "run", step)
    assert set(scores) == {"map", "ap25", "ap50", "recall"}
    detector, facts = read_detector(tmp_path / "run" / detector_run.DETECTOR)
    assert isinstance(detector, Detr3d)
    assert facts["detector"] == "detr3d"
    assert not {"wall", "floor"} & set(detector.classes)
    scan = next(prepared.glob("*.safetensors"))
    assert set(detector(labelled_scene(scan)).labels) <= set(detector.classes)


def test_turned_boxes_are_learned_too(prepared: Path, tmp_path: Path) -> None:
    turned = ["tr3d.yaw=true", "augment.turn=0.5", "optimisation.epochs=1"]
    train_detector(recipe(prepared, *turned), tmp_path / "run", step)
    detector, _ = read_detector(tmp_path / "run" / detector_run.DETECTOR)
    detector.choose_as_published()
    found = detector(labelled_scene(next(prepared.glob("*.safetensors"))))
    assert found.headings.any()


def test_published_class_lists_keep_their_order() -> None:
    def built(classes: str, *overrides: str) -> Tr3d | Detr3d:
        names = [f"data.classes={classes}", *SIZE, *overrides]
        return build(config.load("tr3d_tiny", DetectorRecipe, names), sides)

    sides = {"sofa": np.array([2.0, 1.9]), "cup": np.array([0.1])}
    assert built("scannet18").classes == tuple(SCANNET)
    assert built("scannet18", "detector=detr3d").classes == tuple(SCANNET)
    found = built("nyu40")
    assert found.classes == ("cup", "sofa")
    assert isinstance(found.config, Tr3dConfig)
    assert list(found.config.levels) == [0, 1]
    assert built("nyu40", "tr3d.classes=[cup]", "tr3d.levels=[1]").classes == ("cup",)


def test_a_class_may_be_left_out_of_a_published_list(
    prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sides = {"sofa": np.array([2.0])}
    less = config.load("tr3d_tiny", DetectorRecipe, ["data.leave_out=[chair]", *SIZE])
    less = replace(less, data=replace(less.data, classes="scannet18"))
    assert build(less, sides).classes == tuple(name for name in SCANNET if name != "chair")
    sizes_of_classes(prepared, "train", "nyu40", ["chiar", "chair"], lambda *_: None)
    assert [r.message for r in caplog.records] == ["leave_out: chiar is no class of nyu40"]
    with pytest.raises(InputError, match=r"tr3d\.classes: no object of 'char' in the training"):
        train_detector(
            recipe(prepared, "tr3d.classes=[char]", "tr3d.levels=[0]"), tmp_path / "run", step
        )


def test_too_few_scans_for_a_batch_are_said(prepared: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="4 draws an epoch of its scans of train; expected at"):
        train_detector(recipe(prepared, "optimisation.batch_size=16"), tmp_path / "run", step)
