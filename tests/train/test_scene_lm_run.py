"""Instruction tuning of a small model on made-up scans, from a recipe to a folder and back."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from fakes import random_look, save_language_model, scene_of, small_recipe
from transformers import TrainerCallback

from datasets import Dataset
from o2s import encoded
from o2s.datasets.scan2inst import FEATURES, Skipped, save_records
from o2s.errors import InputError
from o2s.llm.answering import SceneAnswerer
from o2s.own_weights import read_facts
from o2s.scene import RegionFeatures, SceneTokens
from o2s.train import scene_lm_run
from o2s.train.scene_lm_data import (
    Instructions,
    LookAugmentation,
    match,
    mix_tasks,
    open_records,
    read_scans,
    seen_objects,
    usable,
)
from o2s.train.scene_lm_recipe import InstructionData, InstructionRecipe, SceneLMOptimisation
from o2s.train.scene_lm_run import train_scene_lm

KINDS = ("VQA3D", "conversation", "classification3d", "description3d", "object_counting")
LABELS = ("chair", "table", "lamp")


@contextlib.contextmanager
def step(what: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda done, total: None


def look_of(seed: int) -> RegionFeatures:
    look = random_look(seed, 3)
    spread = torch.arange(3)[:, None] * 4.0
    boxes = replace(look.boxes, labels=LABELS, centres=look.boxes.centres + spread)
    return replace(look, boxes=boxes, colors=torch.rand(3, 9))


def records_of(scene: str, look: RegionFeatures, number: int) -> list[dict[str, Any]]:
    """Questions whose answers stand in the scene."""
    empty = dict.fromkeys(FEATURES) | {"answers": [], "object_ids": [], "split": "train"}
    box = [*(look.boxes.centres[number] + 5).tolist(), *look.boxes.sizes[number].tolist()]
    said = {
        "VQA3D": ["What is there?", LABELS[0]],
        "conversation": ["How many?", "3", "And chairs?", "1"],
        "classification3d": ["Name it.", LABELS[number]],
        "description3d": ["Describe it.", f"a red {LABELS[number]}"],
        "object_counting": ["How many lamps?", "1"],
        "dense_captioning": ["All?", "none"],
    }
    rows = []
    for kind, texts in said.items():
        turns = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
        about = box if kind in ("classification3d", "description3d") else None
        row = {"scene_id": scene, "task_type": kind, "conversations": turns, "box": about}
        row |= {"object_id": str(number), "object_name": LABELS[number], "answers": texts[1::2]}
        rows.append({**empty, **row, "question_id": f"{scene}-{kind}", "source": "scanqa"})
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("instructions")
    (folder / "encoded").mkdir()
    for split, count in (("train", 6), ("val", 2)):
        rows = []
        for i in range(count):
            name, look = f"{split}{i}", look_of(i)
            scene = replace(scene_of(torch.rand(4, 3)), name=name)
            scene = replace(scene, centre=torch.full((3,), 5.0, dtype=torch.float64))
            tokens = SceneTokens(torch.zeros(4, 32), look.boxes, look.features, look.colors)
            file = folder / "encoded" / f"{name}.safetensors"
            encoded.write(file, scene, tokens, untrained=[], made_from="test", parts={})
            rows += records_of(name, look, i % 3)
        dataset = Dataset.from_list(rows, FEATURES)
        save_records(dataset, folder / split, skipped=Skipped(), made_from={})
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_language_model(tmp_path_factory.mktemp("language_model"))


def recipe(data: Path, language_model: str, kind: str = "objects", **optimisation: Any) -> Any:
    values = {"steps": 4, "every": 2, "batch_size": 4, **optimisation}
    return InstructionRecipe(
        model=small_recipe(language_model, scene_tokens=kind),
        data=InstructionData(instructions=str(data), encoded=str(data / "encoded"), val_records=8),
        begin_in_language=False,
        optimisation=SceneLMOptimisation(**values),
    )


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / scene_lm_run.WEIGHTS)


def test_an_encoded_scan_is_read_as_it_was_written(data: Path) -> None:
    scan = encoded.read(data / "encoded" / "train1.safetensors")
    torch.manual_seed(0)
    look = look_of(1)
    assert scan.name == "train1"
    assert scan.look.boxes.labels == LABELS
    assert torch.allclose(scan.look.boxes.centres, look.boxes.centres, atol=1e-5)
    assert torch.equal(scan.look.features, look.features)
    assert scan.look.colors is not None
    assert scan.offset.tolist() == [5.0, 5.0, 5.0]


def test_a_file_that_is_no_encoded_scan_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.safetensors: not an encoded scan"):
        encoded.read(tmp_path / "a.safetensors")


def test_records_tell_of_the_objects_that_were_detected(data: Path) -> None:
    records = open_records(data / "train")
    scans = read_scans(data / "encoded", sorted(set(records["scene_id"])))
    found = seen_objects(records, scans)
    assert [o.name for o in found] == [o.label for o in found]
    assert {o.name for o in found} == set(LABELS)
    assert {o.color for o in found} == {"red"}
    first = scans["train0"].look
    assert torch.equal(found[0].feature, first.features[0])
    assert first.colors is not None
    assert found[0].colors is not None
    assert torch.equal(found[0].colors, first.colors[0])


def test_a_new_model_begins_in_language(data: Path, language_model: str, tmp_path: Path) -> None:
    made = replace(recipe(data, language_model, steps=2), begin_in_language=True)
    train_scene_lm(made, tmp_path / "run", step)
    scores = json.loads((tmp_path / "run" / scene_lm_run.SCORES).read_bytes())
    assert scores["names"] == 3
    assert 0 <= scores["named"] <= 1


def test_a_focus_begins_also_where_what_goes_on_had_none(
    data: Path, language_model: str, tmp_path: Path
) -> None:
    plain = replace(recipe(data, language_model, steps=2), begin_in_language=True, focus_steps=2)

    def begun(name: str, before: str | None) -> set[str]:
        weights = None if before is None else str(tmp_path / before / scene_lm_run.WEIGHTS)
        model = replace(plain.model, focus=name != "plain", weights=weights)
        train_scene_lm(replace(plain, model=model), tmp_path / name, step)
        return set(json.loads((tmp_path / name / scene_lm_run.SCORES).read_bytes())) - {"val"}

    assert begun("plain", None) == {"names", "named", "colored"}
    assert begun("new", None) == {"names", "named", "colored", "pointed", "sided", "counted"}
    assert begun("added", "plain") == {"pointed", "sided", "counted"}
    assert begun("on", "added") == set()
    last = SceneAnswerer.load(tmp_path / "on" / scene_lm_run.MODEL)
    assert last.model.focus is not None
    before = weights_of(tmp_path / "added")
    changed = [
        not torch.allclose(parameter, before[f"focus.{name}"].float(), atol=1e-3)
        for name, parameter in last.model.focus.named_parameters()
    ]
    assert any(changed)
    with pytest.raises(InputError, match="made for a model of another recipe"):
        SceneAnswerer.build(
            replace(plain.model, focus=True, weights=str(tmp_path / "plain" / scene_lm_run.WEIGHTS))
        )


def test_queries_have_nothing_to_begin_in_language(
    data: Path, language_model: str, tmp_path: Path
) -> None:
    made = replace(recipe(data, language_model, "octavius", steps=2), begin_in_language=True)
    found = train_scene_lm(made, tmp_path / "run", step)
    scores = json.loads((tmp_path / "run" / scene_lm_run.SCORES).read_bytes())
    assert scores == {"val": found}


@pytest.mark.parametrize("kind", ["octavius", "objects", "both"])
def test_a_run_leaves_weights_a_model_and_scores(
    data: Path, language_model: str, kind: str, tmp_path: Path
) -> None:
    found = train_scene_lm(recipe(data, language_model, kind), tmp_path / "run", step)
    assert {"exact", "loss", "loss_description3d", "exact_VQA3D"} <= set(found)
    assert json.loads((tmp_path / "run" / scene_lm_run.SCORES).read_bytes())["val"] == found
    trained = SceneAnswerer.load(tmp_path / "run" / scene_lm_run.MODEL)
    assert trained.untrained == ["region encoder"]
    weights = str(tmp_path / "run" / scene_lm_run.WEIGHTS)
    facts = read_facts(Path(weights), "scene_lm")
    assert facts is not None
    assert facts["scores"]["val"] == found
    assert str(tmp_path) not in json.dumps(facts)
    assert facts["recipe"]["model"]["lora_moe"]["base_model_name_or_path"] is None
    same = SceneAnswerer.build(small_recipe(language_model, scene_tokens=kind, weights=weights))
    state = dict(same.model.named_parameters())
    for name, parameter in trained.model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter, state[name], atol=1e-3), name
    history = json.loads(
        max((tmp_path / "run" / "checkpoints").glob("*/trainer_state.json")).read_bytes()
    )["log_history"]
    assert any("eval_loss_VQA3D" in entry for entry in history)


@pytest.mark.slow
def test_it_learns_to_say_what_stands_in_the_scene(
    data: Path, language_model: str, tmp_path: Path
) -> None:
    options = {"learning_rate": 5e-3, "object_tokens_rate": 1.0, "batch_size": 8}
    made = recipe(data, language_model, steps=400, every=400, **options)
    found = train_scene_lm(made, tmp_path / "run", step)
    assert found["exact_classification3d"] == 1  # another object, another answer


def test_a_killed_run_goes_on_to_the_same_result(
    data: Path, language_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(data, language_model, steps=6, learning_rate=1e-2)
    train_scene_lm(made, tmp_path / "whole", step)
    trainer_class = scene_lm_run.InstructionTrainer

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    def killed(*args: Any) -> Any:
        trainer = trainer_class(*args)
        trainer.add_callback(Killed())
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(scene_lm_run, "InstructionTrainer", killed)
        with pytest.raises(KeyboardInterrupt):
            train_scene_lm(made, tmp_path / "killed", step)
    assert not (tmp_path / "killed" / scene_lm_run.WEIGHTS).exists()
    train_scene_lm(made, tmp_path / "killed", step)
    whole, again = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert whole.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_run_of_another_recipe_is_refused(
    data: Path, language_model: str, tmp_path: Path
) -> None:
    train_scene_lm(recipe(data, language_model, steps=2), tmp_path / "run", step)
    with pytest.raises(InputError, match="a run of another recipe"):
        train_scene_lm(recipe(data, language_model, steps=4), tmp_path / "run", step)


TWO = """
import sys
from pathlib import Path
from test_scene_lm_run import recipe, step
from o2s.train.run_folder import leave_together
from o2s.train.scene_lm_run import train_scene_lm
made = recipe(Path(sys.argv[1]), sys.argv[2], steps=2, batch_size=int(sys.argv[4]))
train_scene_lm(made, Path(sys.argv[3]), step)
leave_together()
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_does(data: Path, language_model: str, tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO)
    here = Path(__file__).parent
    paths = f"{here}:{here.parent}"

    def run(launcher: list[str], folder: Path, batch: int) -> None:
        command = [*launcher, str(tmp_path / "two.py"), str(data), language_model]
        done = subprocess.run(
            [*command, str(folder), str(batch)],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    run([sys.executable], tmp_path / "one", 8)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    run([*torchrun, "--master-port", "29617"], tmp_path / "two", 4)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, value in one.items():
        assert torch.allclose(value, two[name], atol=2e-3), name


def test_only_what_was_detected_is_spoken_of(data: Path) -> None:
    records = open_records(data / "train")
    scans = read_scans(data / "encoded", sorted(set(records["scene_id"])))
    kept = usable(records, scans)
    assert set(kept["task_type"]) == set(KINDS)
    examples = Instructions(kept, scans)
    for i in range(len(kept)):
        example = examples[i]
        if example.kind == "classification3d":
            assert example.marked is not None
            assert example.answers == [LABELS[example.marked]]
    assert match(scans["train0"], [50.0, 0.0, 0.0, 1.0, 1.0, 1.0]) is None


def test_a_missing_scan_is_named(data: Path) -> None:
    with pytest.raises(InputError, match="no encoded scan scene9, one of 1"):
        read_scans(data / "encoded", ["scene9", "train0"])


def test_tasks_are_mixed_by_their_weights(data: Path) -> None:
    records = open_records(data / "train")
    mixed = mix_tasks(records, {"VQA3D": 3.0, "conversation": 1.0}, 400, seed=0)
    kinds = mixed["task_type"]
    assert len(kinds) == 400
    assert 0.6 < kinds.count("VQA3D") / 400 < 0.9
    with pytest.raises(InputError, match="no records of nothing"):
        mix_tasks(records, {"nothing": 1.0}, 4, seed=0)


def test_augmentation_keeps_the_marked_region_and_changes_the_rest() -> None:
    augment = LookAugmentation(jitter=0.1, drop=0.5, intruders=0.5, rename=0.5, color=0.1)
    look, other = look_of(0), look_of(9)
    sizes, renamed, dropped = set(), False, False
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        changed, places = augment(look, other, 2, generator)
        marked = places[2]
        kept = [region for region, place in enumerate(places) if place >= 0]
        assert torch.equal(changed.features[[places[r] for r in kept]], look.features[kept])
        dropped |= len(kept) < len(places)
        assert torch.equal(changed.features[marked], look.features[2])
        assert changed.colors is not None
        assert len(changed.boxes) == len(changed.features) == len(changed.colors)
        assert changed.boxes.sizes.min() > 0
        sizes.add(len(changed.boxes))
        renamed |= changed.boxes.labels[marked] != LABELS[2]
    assert renamed
    assert dropped
    assert {1, 2, 4} <= sizes
    nothing = LookAugmentation(jitter=0.0, drop=0.0, intruders=0.0, rename=0.0, color=0.0)
    same, places = nothing(look, other, 1, torch.Generator())
    assert places == list(range(len(look.boxes)))
    assert torch.equal(same.boxes.tensor, look.boxes.tensor)


@pytest.mark.parametrize("field", ["drop", "intruders", "rename", "jitter", "color"])
def test_shares_that_cannot_be_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 1.5"):
        LookAugmentation(**{field: 1.5})


def test_scans_of_another_encoder_are_refused(
    data: Path, language_model: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(data, tmp_path / "data")
    scan = encoded.read(folder / "encoded" / "val0.safetensors")
    scene = replace(scene_of(torch.rand(4, 3)), name="val0")

    def encode(width: int, parts: dict[str, str]) -> None:
        look = replace(scan.look, features=scan.look.features[:, :1].repeat(1, width))
        tokens = SceneTokens(torch.zeros(4, width), look.boxes, look.features, look.colors)
        file = folder / "encoded" / "val0.safetensors"
        encoded.write(file, scene, tokens, untrained=[], made_from="test", parts=parts)

    encode(16, {})
    with pytest.raises(InputError, match=r"val0\.safetensors: encoded with another region encoder"):
        train_scene_lm(recipe(folder, language_model), tmp_path / "run", step)
    encode(32, {"detector": "another"})
    with pytest.raises(InputError, match=r"val0\.safetensors: encoded with another detector than"):
        train_scene_lm(recipe(folder, language_model), tmp_path / "run", step)


def test_the_loss_decides_between_checkpoints_that_are_equally_exact() -> None:
    rank = scene_lm_run.InstructionTrainer.ranked
    scores = [{"exact": e, "loss": loss} for e, loss in ((0.0, 5.0), (0.0, 4.0), (0.1, 9.0))]
    ranks = [rank(cast(Any, None), found)["rank"] for found in scores]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3
