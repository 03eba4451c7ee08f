"""One run of instruction tuning, from a recipe to a folder with the model and its scores."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from o2s import config as configs
from o2s.encoder import SceneEncoder, part_digests
from o2s.files import write_json
from o2s.llm.answering import SceneAnswerer
from o2s.llm.modeling import SceneLM
from o2s.llm.scene_tokens import ObjectTokens
from o2s.llm.trained_parts import (
    load_trained_parts,
    still_untrained,
    write_trained_parts,
)
from o2s.train.focus_fit import Looked, begin_words, fit_focus, pointings
from o2s.train.language_bridge import SeenObject, begin_in_language
from o2s.train.run_folder import SCORES, Step, begun, train_with_progress
from o2s.train.scene_lm import InstructionTrainer, Part, training_arguments
from o2s.train.scene_lm_data import (
    Instructions,
    mix_tasks,
    open_records,
    read_scans,
    require_encoder,
    seen_objects,
    usable,
)
from o2s.train.scene_lm_recipe import InstructionRecipe

WEIGHTS, MODEL = "scene_lm.safetensors", "model"

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
    known = configs.to_dict(recipe)  # before PEFT writes into it where the model lies
    with begun(folder, args, known) as first:
        with step("loading the language model"):
            model, processor = SceneLM.build(replace(recipe.model, weights=None))
            new = _load(model, recipe.model.weights)
            new = new if recipe.begin_in_language else _New()
        length = settings.steps * settings.batch_size * settings.accumulate * args.world_size
        with step("reading instructions"):
            (train, shown), (val, held_out) = (
                _read(recipe, model, split, length, new) for split in ("train", "val")
            )
        facts: dict[str, Any] = {}
        if new.object_tokens:
            with step("beginning in language"):
                report = begin_in_language(
                    cast(ObjectTokens, model.object_tokens),
                    processor.tokenizer,
                    cast(Any, model).get_input_embeddings(),
                    shown.objects,
                    held_out.objects,
                )
            facts["bridge"] = asdict(report)
            logger.info("the bridge begins with %s", report)
        if new.focus:
            with step("beginning to point"):
                begin_words(model, processor)
                focus = fit_focus(
                    model, processor, shown.questions, held_out.questions, recipe.focus_steps
                )
            facts["focus"] = asdict(focus)
            logger.info("the focus begins with %s", focus)
        rates: dict[Part, float] = {
            "object_tokens": settings.object_tokens_rate,
            "pointers": settings.pointers_rate,
        }
        trainer = InstructionTrainer(model, processor, train, val, args, rates)
        train_with_progress(trainer, step)
        scores = trainer.score(val)
        state = trainer.gathered_state()
        if first:
            model.config.untrained = still_untrained(model.config.untrained or [])
            known = {key: value for key, value in known.items() if key != "data"}
            facts |= {"recipe": known, "scores": {"val": scores}}
            write_trained_parts(folder / WEIGHTS, model, facts, state)
            SceneAnswerer(model.eval(), processor).save(folder / MODEL, state)
            at_first = facts.get("bridge", {}) | facts.get("focus", {})
            write_json(folder / SCORES, {"val": scores, **at_first})
    return scores


@dataclass(frozen=True)
class _New:
    """Which parts are new, and begin with what the records say."""

    object_tokens: bool = False
    focus: bool = False


@dataclass(frozen=True)
class _Shown:
    """What the records of a split say to parts that begin."""

    objects: list[SeenObject]
    questions: list[Looked]


def _load(model: SceneLM, before: str | None) -> _New:
    """Go on from trained weights, if there are any; those may be of a model without focus."""
    if before is None:
        return _New(model.object_tokens is not None, model.focus is not None)
    facts = load_trained_parts(model, before, new="focus.")
    focused = facts.get("recipe", {}).get("model", {}).get("focus", False)
    return _New(focus=model.focus is not None and not focused)


def _read(
    recipe: InstructionRecipe, model: SceneLM, split: str, length: int, new: _New
) -> tuple[Instructions, _Shown]:
    """The records of a split, and what they say to the parts that are new."""
    data, seed = recipe.data, recipe.optimisation.seed
    records = open_records(Path(data.instructions) / split)
    scans = read_scans(Path(data.encoded), sorted(set(records["scene_id"])))
    encoder = cast(SceneEncoder, model.encoder)
    require_encoder(Path(data.encoded), scans, encoder.width, part_digests(encoder.state_dict()))
    records = usable(records, scans)
    shown = _Shown(
        seen_objects(records, scans) if new.object_tokens else [],
        pointings(records, scans, recipe.model.least_score) if new.focus else [],
    )
    if split == "train":
        records = mix_tasks(records, data.weights, length, seed)
        return Instructions(records, scans, augment=recipe.augment, seed=seed), shown
    kinds = {k: w for k, w in data.weights.items() if k != "conversation"} or data.weights
    even = dict.fromkeys(kinds, 1.0)
    return Instructions(mix_tasks(records, even, data.val_records, seed), scans), shown
