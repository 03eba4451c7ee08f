"""What every training run does with its folder and its progress."""

import gc
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from o2s.errors import InputError
from o2s.files import alone_in, clear_leftovers, settled

logger = logging.getLogger(__name__)

RECIPE, SCORES = "recipe.json", "scores.json"

# A line of progress for a step of work; yields a function of how much is done and of all.
Step = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@contextmanager
def begun(folder: Path, args: TrainingArguments, recipe: Mapping[str, Any]) -> Iterator[bool]:
    """A run in a folder that no other uses meanwhile, its recipe written, its seed set.

    Yields:
        Whether this process is the first, which of several alone writes.

    Raises:
        InputError: the folder is in use, or holds a run of another recipe.
    """
    first = args.process_index == 0
    Path(str(args.output_dir)).mkdir(parents=True, exist_ok=True)
    with alone_in(folder) if first else nullcontext():
        if first:
            clear_leftovers(folder)
            checkpoints = Path(str(args.output_dir))
            if last_checkpoint(checkpoints) is None and not (folder / SCORES).exists():
                (folder / RECIPE).unlink(missing_ok=True)  # nothing was trained by it
            settle_recipe(folder / RECIPE, {**recipe, "processes": args.world_size})
        torch.manual_seed(args.seed)
        yield first


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
        trainer.train(resume_from_checkpoint=last_checkpoint(Path(str(trainer.args.output_dir))))


def last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint in a folder. What a run was killed at lacks the trainer's state,
    which is written last."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{TRAINER_STATE_NAME}")]
    return max(map(str, whole), key=lambda path: int(path.rpartition("-")[2]), default=None)


def leave_together() -> None:
    """At the end of a command, of several processes each waits for all before they part.

    One that ends while another still speaks to it is aborted by gloo's threads. These are ended
    here, which takes that nothing holds on to the group any more.
    """
    if dist.is_initialized():
        dist.barrier()
        gc.collect()
        dist.destroy_process_group()


def run_arguments(
    folder: Path, *, best: str, labels: str, seed: int, **settings: Any
) -> TrainingArguments:
    """transformers' arguments as all runs want them: scored and saved after each epoch, if the
    settings say nothing else, of which the best is kept.

    Args:
        folder: of the checkpoints.
        best: the score of val that says which epoch is the best; more is better.
        labels: the key of a batch that holds what is learned.
        seed: of all that is random.
        settings: what else the run wants.
    """
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", **settings}
    args = TrainingArguments(
        output_dir=str(folder),
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        logging_strategy="steps",
        logging_steps=20,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=best,
        greater_is_better=True,
        remove_unused_columns=False,
        label_names=[labels],
        report_to=["tensorboard"] if find_spec("tensorboard") else [],
        seed=seed,
        disable_tqdm=False,
        ddp_timeout=6 * 3600,  # while the first process embeds what the others wait for
        **settings,
    )
    use_one_gpu(args)
    return args


def use_one_gpu(args: Any) -> None:
    """Keep Trainer from nn.DataParallel, which would cut batches of scans into pieces."""
    if args.n_gpu > 1:
        logger.info("one of %d GPUs is used; `torchrun --nproc-per-node` uses several", args.n_gpu)
        args._n_gpu = 1


class ScoredTrainer(Trainer):
    """transformers' Trainer, whose evaluation is `score` of `val`."""

    val: Any

    def score(self, examples: Any) -> dict[str, float]:
        """Scores by name."""
        raise NotImplementedError

    def ranked(self, scores: Mapping[str, float]) -> dict[str, float]:
        """What else is logged, to say which checkpoint is the best."""
        return {}

    def gathered_state(self) -> dict[str, torch.Tensor] | None:
        """The whole weights, where processes hold a part of them each (FSDP, DeepSpeed), in the
        first process; None where each has them. All processes must call it."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return cast(
                dict[str, torch.Tensor], self.accelerator.get_state_dict(self.model_wrapped)
            )
        return None

    def evaluate(self, *args: Any, metric_key_prefix: str = "eval", **_: Any) -> dict[str, float]:
        """The scores on val."""
        found = [self.score(self.val)]
        found[0] |= self.ranked(found[0])
        if self.args.world_size > 1:  # else each would keep another checkpoint for the best
            broadcast_object_list(found)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found[0].items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


class _Progress(TrainerCallback):
    """Steps to a line of progress, and the scores of each epoch to the log."""

    def __init__(self, update: Callable[[int, int], None]) -> None:
        self.update = update

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A run that goes on may have been moved since its best checkpoint was noted."""
        best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
        if best.is_dir():
            state.best_model_checkpoint = str(best)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.update(state.global_step, state.max_steps)
        if state.global_step >= state.max_steps and args.eval_strategy == "steps":
            control.should_evaluate = True  # where steps are no multiple of those between

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        metrics = kwargs.get("metrics") or {}
        shown = ", ".join(
            f"{k.removeprefix('eval_')} {v:.3f}" for k, v in metrics.items() if k != "eval_rank"
        )
        loss = f"loss {losses[-1]:.3f}, " if losses else ""
        logger.info("epoch %.0f: %sval %s", state.epoch or 0, loss, shown)
