"""What every training run does with its folder and its progress."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from o2s.errors import InputError
from o2s.files import settled

logger = logging.getLogger(__name__)

# A line of progress for a step of work; yields a function of how much is done and of all.
Step = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


def settle_recipe(path: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe of a new folder, or check that the one that is there is the same.

    Raises:
        InputError: the folder holds a run of another recipe.
    """
    recipe = json.loads(json.dumps(recipe))
    found = settled(path, recipe)
    differing = [key for key in recipe if found.get(key) != recipe[key]]
    if differing:
        raise InputError(
            f"{path}: a run of another recipe (its {', '.join(differing)} differ); "
            "choose another --out"
        )


def train_with_progress(trainer: Trainer, step: Step) -> None:
    """Train, or go on after the last epoch that was saved, with one line of progress."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    with step("training") as update:
        trainer.add_callback(_Progress(update))
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(trainer.args.output_dir)))


class _Progress(TrainerCallback):
    """Steps to a line of progress, and the scores of each epoch to the log."""

    def __init__(self, update: Callable[[int, int], None]) -> None:
        self.update = update

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.update(state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        metrics = kwargs.get("metrics") or {}
        shown = ", ".join(f"{k.removeprefix('eval_')} {v:.3f}" for k, v in metrics.items())
        loss = f"loss {losses[-1]:.3f}, " if losses else ""
        logger.info("epoch %.0f: %sval %s", state.epoch or 0, loss, shown)
