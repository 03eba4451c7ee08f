"""What all training runs do with their folder: recipes, the best checkpoint, several processes."""

import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch.utils.data import Dataset

from o2s.errors import InputError
from o2s.train import regions
from o2s.train.checks import check_optimisation
from o2s.train.detector_recipe import DetectorOptimisation
from o2s.train.regions import RegionOptimisation
from o2s.train.run_folder import (
    ScoredTrainer,
    begun,
    run_arguments,
    train_with_progress,
    use_one_gpu,
)
from o2s.train.scene_lm_recipe import InstructionData, SceneLMOptimisation


class Line(torch.nn.Module):
    """One number, drawn to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.at = torch.nn.Parameter(torch.zeros(1))

    def forward(self, target: torch.Tensor) -> torch.Tensor:
        return (self.at - target).square().mean()


class Targets(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"target": torch.ones(1)}


class LineTrainer(ScoredTrainer):
    """The score is how often it was asked for, which makes each evaluation better."""

    def __init__(self, args: Any) -> None:
        self.val, self.scored = None, []
        data = Targets()
        super().__init__(model=Line(), args=args, train_dataset=data, eval_dataset=data)

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return model(**inputs)

    def score(self, examples: Any) -> dict[str, float]:
        self.scored.append(self.state.global_step)
        return {"score": float(len(self.scored))}


def arguments(folder: Path, **settings: Any) -> Any:
    usual = {"per_device_train_batch_size": 2, "learning_rate": 0.1}
    return run_arguments(
        folder / "checkpoints", best="eval_score", labels="target", seed=0, **{**usual, **settings}
    )


def step(what: str) -> Any:
    return nullcontext(lambda done, total: None)


def test_a_recipe_by_which_nothing_was_trained_binds_nothing(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=2)
    with pytest.raises(InputError, match="no such file"), begun(tmp_path, args, {"data": "nope"}):
        raise InputError("nope: no such file")
    with begun(tmp_path, args, {"data": "here"}) as first:
        assert first
        train_with_progress(LineTrainer(args), step)
    assert json.loads((tmp_path / "recipe.json").read_text())["data"] == "here"
    with (
        pytest.raises(InputError, match=r"another recipe \(its data differ\)"),
        begun(tmp_path, args, {"data": "there"}),
    ):
        pass


def test_a_run_goes_on_with_as_many_processes(tmp_path: Path) -> None:
    args = arguments(tmp_path, max_steps=2)
    with begun(tmp_path, args, {}):
        train_with_progress(LineTrainer(args), step)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps({"processes": 2}))
    with (
        pytest.raises(InputError, match=r"another recipe \(its processes differ\)"),
        begun(tmp_path, args, {}),
    ):
        pass


def test_steps_after_the_last_evaluation_are_scored_too(tmp_path: Path) -> None:
    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 3, "save_steps": 3}
    trainer = LineTrainer(arguments(tmp_path, max_steps=5, **every))
    train_with_progress(trainer, step)
    assert trainer.scored == [3, 5]
    assert trainer.state.best_global_step == 5


def test_a_finished_run_that_was_moved_keeps_its_best(tmp_path: Path) -> None:
    class Best(LineTrainer):
        def score(self, examples: Any) -> dict[str, float]:
            return {"score": -abs(self.state.global_step - 2.0)}

    every = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    trainer = Best(arguments(tmp_path / "first", max_steps=4, **every))
    train_with_progress(trainer, step)
    best = cast(Line, trainer.model).at.item()
    (tmp_path / "first").rename(tmp_path / "second")
    again = Best(arguments(tmp_path / "second", max_steps=4, **every))
    train_with_progress(again, step)
    assert cast(Line, again.model).at.item() == best


def test_scans_are_not_cut_for_several_gpus() -> None:
    many, none = SimpleNamespace(n_gpu=4, _n_gpu=4), SimpleNamespace(n_gpu=0, _n_gpu=0)
    use_one_gpu(many)
    use_one_gpu(none)
    assert (many._n_gpu, none._n_gpu) == (1, 0)


@pytest.mark.parametrize(
    "kind, values, says",
    [
        (RegionOptimisation, {"seed": -1}, "seed is -1, expected 0 to 2"),
        (RegionOptimisation, {"beta2": 1.0}, "beta2 is 1.0, expected 0 to below 1"),
        (RegionOptimisation, {"final_learning_rate": -1.0}, "expected 0 or more"),
        (RegionOptimisation, {"balance": 1.5}, "balance is 1.5, expected 0 to 1"),
        (DetectorOptimisation, {"workers": -1}, "workers is -1, expected 0 or more"),
        (DetectorOptimisation, {"weight_decay": -1.0}, "weight_decay is -1.0"),
        (DetectorOptimisation, {"epochs": 0}, "epochs is 0, expected at least 1"),
        (SceneLMOptimisation, {"warmup": 1.0}, "warmup is 1.0, expected 0 to below 1"),
        (SceneLMOptimisation, {"learning_rate": 0.0}, "learning_rate is 0.0, expected above 0"),
        (SceneLMOptimisation, {"clip": float("nan")}, "clip is nan"),
        (InstructionData, {"weights": {"VQA3D": 0.0}}, "expected numbers above 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    kind: type, values: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**values)
    check_optimisation(SimpleNamespace())


@pytest.mark.parametrize("there", [True, False])
def test_bf16_is_used_where_it_is_faster_and_tensorboard_always(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions, "has_bf16", lambda: there)
    args = regions.training_arguments(RegionOptimisation(), tmp_path)
    assert args.bf16 is there
    assert args.report_to == ["tensorboard"]
