"""One run of instruction tuning, from a recipe to a folder with the model and its scores."""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from o2s import config as configs
from o2s.files import alone_in, clear_leftovers, write_json
from o2s.llm.answering import SceneAnswerer
from o2s.llm.modeling import SceneLM
from o2s.llm.scene_tokens import ObjectTokens
from o2s.llm.trained_parts import still_untrained, write_trained_parts
from o2s.train.language_bridge import SeenObject, begin_in_language
from o2s.train.run_folder import Step, settle_recipe, train_with_progress
from o2s.train.scene_lm import InstructionTrainer, training_arguments
from o2s.train.scene_lm_data import (
    Instructions,
    mix_tasks,
    open_records,
    read_scans,
    seen_objects,
    usable,
)
from o2s.train.scene_lm_recipe import InstructionRecipe

WEIGHTS, MODEL, SCORES = "scene_lm.safetensors", "model", "scores.json"

logger = logging.getLogger(__name__)


def train_scene_lm(recipe: InstructionRecipe, folder: Path, step: Step) -> Mapping[str, float]:
    """Tune a SceneLM on instructions; a run that was interrupted goes on after its last checkpoint.

    Args:
        recipe: what to train on what, and how.
        folder: where everything goes: the trained weights, the model as `--model` takes it, the
            scores and `checkpoints/`.
        step: draws lines of progress.

    Returns:
        The scores on val.

    Raises:
        InputError: data that cannot be read, or a folder that holds a run of another recipe.
    """
    settings = recipe.optimisation
    args = training_arguments(settings, folder / "checkpoints")
    first = args.process_index == 0  # of several processes this one alone writes
    Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
    with alone_in(folder) if first else nullcontext():
        known = configs.to_dict(recipe)  # before PEFT writes into it where the model lies
        if first:
            clear_leftovers(folder)
            settle_recipe(folder / "recipe.json", known)
        torch.manual_seed(settings.seed)
        with step("loading the language model"):
            model, processor = SceneLM.build(recipe.model)
        length = settings.steps * settings.batch_size * settings.accumulate * args.world_size
        with step("reading instructions"):
            (train, seen), (val, held_out) = (
                _read(recipe, split, length) for split in ("train", "val")
            )
        facts: dict[str, Any] = {}
        if _begins(recipe):
            embedding = cast(Any, model).get_input_embeddings()
            with step("beginning in language"):
                report = begin_in_language(
                    cast(ObjectTokens, model.object_tokens),
                    processor.tokenizer,
                    embedding,
                    seen,
                    held_out,
                )
            facts["bridge"] = asdict(report)
            logger.info("the bridge begins with %s", report)
        rate = settings.object_tokens_rate
        trainer = InstructionTrainer(model, processor, train, val, args, rate)
        train_with_progress(trainer, step)
        scores = trainer.score(val)
        if first:
            model.config.untrained = still_untrained(model.config.untrained or [])
            known = {key: value for key, value in known.items() if key != "data"}
            facts |= {"recipe": known, "scores": {"val": scores}}
            write_trained_parts(folder / WEIGHTS, model, facts)
            SceneAnswerer(model.eval(), processor).save(folder / MODEL)
            write_json(folder / SCORES, {"val": scores, **facts.get("bridge", {})})
    return scores


def _read(
    recipe: InstructionRecipe, split: str, length: int
) -> tuple[Instructions, list[SeenObject]]:
    """The records of a split, and what they say of its objects if the bridge begins with that."""
    data, seed = recipe.data, recipe.optimisation.seed
    records = open_records(Path(data.instructions) / split)
    scans = read_scans(Path(data.encoded), sorted(set(records["scene_id"])))
    records = usable(records, scans)
    seen = seen_objects(records, scans) if _begins(recipe) else []
    if split == "train":
        records = mix_tasks(records, data.weights, length, seed)
        return Instructions(records, scans, augment=recipe.augment, seed=seed), seen
    kinds = {k: w for k, w in data.weights.items() if k != "conversation"} or data.weights
    even = dict.fromkeys(kinds, 1.0)
    return Instructions(mix_tasks(records, even, data.val_records, seed), scans), seen


def _begins(recipe: InstructionRecipe) -> bool:
    """Whether there are new object tokens that shall begin as words."""
    model = recipe.model
    return recipe.begin_in_language and model.weights is None and model.scene_tokens != "octavius"
