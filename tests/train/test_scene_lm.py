"""Losses, scores and learning rates of instruction tuning."""

from pathlib import Path

import pytest
import torch
from fakes import save_language_model, small_recipe

from datasets import Dataset
from o2s.datasets.scan2inst import FEATURES
from o2s.llm.modeling import SceneLM
from o2s.llm.processing import IGNORED
from o2s.train.scene_lm import (
    InstructionTrainer,
    answers_in,
    summarise,
    token_losses,
    training_arguments,
)
from o2s.train.scene_lm_data import Instructions
from o2s.train.scene_lm_recipe import SceneLMOptimisation


def test_parts_that_begin_well_learn_at_their_own_rates(tmp_path: Path) -> None:
    recipe = small_recipe(
        save_language_model(tmp_path / "language_model"), scene_tokens="objects", focus=True
    )
    model, processor = SceneLM.build(recipe)
    args = training_arguments(SceneLMOptimisation(learning_rate=1e-2), tmp_path / "run")
    records = Instructions(Dataset.from_list([dict.fromkeys(FEATURES)], FEATURES), {})
    trainer = InstructionTrainer(
        model, processor, records, records, args, {"object_tokens": 0.5, "pointers": 0.25}
    )
    groups = trainer.create_optimizer().param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    found = {n: rates[id(p)] for n, p in model.named_parameters() if p.requires_grad}
    assert found["object_tokens.kind"] == pytest.approx(0.5e-2)
    assert found["focus.read.weight"] == pytest.approx(0.25e-2)
    others = {name for name, rate in found.items() if rate == pytest.approx(1e-2)}
    assert {"focus.kind", "focus.sides", "focus.counts"} <= others
    assert any("lora" in name for name in others)


def test_padding_costs_nothing_and_scales_nothing() -> None:
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    labels[0, :2], labels[1, 3:] = IGNORED, IGNORED
    places, wanted = answers_in(labels)
    losses, counted = token_losses(logits[:, places], wanted)
    expected = []
    for row in range(2):
        for t in range(1, 5):
            if labels[row, t] != IGNORED:
                chances = logits[row, t - 1].log_softmax(-1)
                expected.append(-chances[labels[row, t]])
    assert torch.allclose(losses, torch.stack(expected), atol=1e-6)
    assert int(counted.sum()) == len(expected)


def test_scores_are_means_over_tasks() -> None:
    found = summarise([("a", 1.0, True), ("a", 3.0, False), ("description3d", 4.0, True)])
    assert found["loss"] == 3.0
    assert found["exact"] == 0.5
    assert found["loss_a"] == 2.0
    assert "exact_description3d" not in found
