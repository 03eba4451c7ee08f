"""Instruction tuning through transformers' Trainer.

Instructions -> SceneLM -> the loss of all answers, by task -> Trainer
             -> the state that answers best on val is kept

Several processes (`torchrun`) share the records of a step and of an evaluation.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from accelerate.utils import gather_object
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import TrainingArguments

from o2s.encoder import evaluating
from o2s.llm.modeling import SceneLM
from o2s.llm.processing import IGNORED, SceneLMProcessor
from o2s.train.run_folder import ScoredTrainer, run_arguments
from o2s.train.scene_lm_data import Instructions, collate
from o2s.train.scene_lm_recipe import SceneLMOptimisation

BEST = "eval_rank"

Part = Literal["rest", "object_tokens", "pointers"]


class InstructionTrainer(ScoredTrainer):
    """transformers' Trainer, which logs the loss of each task and evaluates answers."""

    def __init__(
        self,
        model: SceneLM,
        processor: SceneLMProcessor,
        train: Instructions,
        val: Instructions,
        args: TrainingArguments,
        rates: Mapping[Part, float] | None = None,
    ) -> None:
        self.processor, self.val, self.rates = processor, val, rates or {}
        # A checkpoint without the language model lacks nothing.
        elsewhere = sorted(model.state_dict().keys() - model._own_state().keys())
        model._keys_to_ignore_on_save = elsewhere  # pyright: ignore[reportAttributeAccessIssue]
        self._losses: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
            data_collator=partial(collate, processor=processor),
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's, in which parts that begin with what they need have their own learning rate."""
        if self.optimizer is None:
            learner = cast(Any, model or self.model)
            kind, options = self.get_optimizer_cls_and_kwargs(self.args, learner)
            groups: dict[Part, list[Tensor]] = defaultdict(list)
            for name, parameter in learner.named_parameters():
                if parameter.requires_grad:
                    groups[part_of(name)].append(parameter)
            self.optimizer = kind(
                [
                    {
                        "params": groups[part],
                        "lr": self.args.learning_rate * self.rates.get(part, 1.0),
                    }
                    for part in get_args(Part)
                    if groups[part]
                ],
                **{**options, "weight_decay": self.args.weight_decay},
            )
        return self.optimizer

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The mean over all tokens of answers of the step, of all processes."""
        given = {k: v for k, v in inputs.items() if k not in ("labels", "kinds")}
        places, wanted = answers_in(inputs["labels"])
        losses, counted = token_losses(model(**given, logits_to_keep=places).logits, wanted)
        rows = counted.nonzero()[:, 0].tolist()
        for row, value in zip(rows, losses.tolist(), strict=True):
            sums = self._losses[inputs["kinds"][row]]
            sums[0] += value
            sums[1] += 1
        balance = self.accelerator.unwrap_model(model).balance_loss()
        more = 0.0 if balance is None else balance
        if num_items_in_batch is None:
            return losses.mean() + more
        # Gradients are averaged over processes, and each counts the tokens of all; they are summed
        # over the batches of a step.
        mean = losses.sum() / num_items_in_batch * self.args.world_size
        return mean + more / getattr(self, "current_gradient_accumulation_steps", 1)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Trainer's, with the loss of each task (of this process) since the last time."""
        if "loss" in logs:
            for kind, (total, count) in sorted(self._losses.items()):
                logs[f"loss_{kind}"] = total / max(count, 1)
            self._losses.clear()
        super().log(logs, *args, **kwargs)

    def ranked(self, scores: Mapping[str, float]) -> dict[str, float]:
        """By exact answers; the loss decides where these are equal, as of descriptions alone."""
        return {"rank": scores["exact"] - 1e-4 * scores["loss"]}

    @torch.no_grad()
    def score(self, records: Instructions) -> dict[str, float]:
        """For each task, the loss a token and the share of records whose every token is the most
        likely one, which is when greedy decoding says exactly the answer; `exact` and `loss` are
        their means over tasks, `exact` without descriptions, of which there are many right ones.
        """
        model = self.accelerator.unwrap_model(self.model)
        count, mine = self.args.world_size, self.args.process_index
        found: list[tuple[str, float, bool]] = []
        rows = range(mine, len(records), count)
        size = self.args.per_device_eval_batch_size
        with evaluating(model):
            # As many batches in each process, since sharded weights are gathered by all at once.
            for start in range(0, -(-len(records) // count), size):
                examples: list[Any] = [records[i] for i in rows[start : start + size] or [0]]
                inputs: Any = self._prepare_inputs(self.data_collator(examples))
                kinds, labels = inputs.pop("kinds"), inputs.pop("labels")
                places, wanted = answers_in(labels)
                logits = model(**inputs, logits_to_keep=places).logits
                losses, counted = token_losses(logits, wanted)
                right = logits.argmax(dim=-1) == wanted
                spread = torch.zeros(counted.shape).masked_scatter(counted.cpu(), losses.cpu())
                means = spread.sum(dim=1) / counted.sum(dim=1).cpu()
                exact = (right | ~counted).all(dim=1).tolist()
                if start < len(rows):
                    found += zip(kinds, means.tolist(), exact, strict=True)
        if count > 1:
            found = gather_object(found)
        return summarise(found)


def part_of(parameter: str) -> Part:
    """The part of the model that a parameter belongs to, by its name."""
    if "object_tokens." in parameter:
        return "object_tokens"
    read = parameter.endswith((".kind", ".sides", ".counts"))  # by the language model, as words
    return "pointers" if "focus." in parameter and not read else "rest"


def summarise(found: list[tuple[str, float, bool]]) -> dict[str, float]:
    """Task, loss and exactness of each record to the means by task and over tasks."""
    by_kind: dict[str, list[tuple[float, bool]]] = defaultdict(list)
    for kind, loss, exact in found:
        by_kind[kind].append((loss, exact))
    losses = {k: sum(loss for loss, _ in v) / len(v) for k, v in sorted(by_kind.items())}
    exact = {
        k: sum(right for _, right in v) / len(v)
        for k, v in sorted(by_kind.items())
        if k != "description3d"
    }
    scores = {"exact": sum(exact.values()) / max(len(exact), 1)}
    scores["loss"] = sum(losses.values()) / max(len(losses), 1)
    scores |= {f"exact_{kind}": value for kind, value in exact.items()}
    return scores | {f"loss_{kind}": value for kind, value in losses.items()}


def answers_in(labels: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "P"], Int[Tensor, "B P"]]:
    """The places whose logits say a token that counts in any row, and the labels of these tokens:
    each token is predicted from the one before. Elsewhere no logits are needed."""
    wanted = labels[:, 1:]
    places = (wanted != IGNORED).any(dim=0).nonzero()[:, 0]
    return places, wanted[:, places]


def token_losses(
    logits: Float[Tensor, "B P V"], wanted: Int[Tensor, "B P"]
) -> tuple[Float[Tensor, "N"], Bool[Tensor, "B P"]]:
    """The cross entropy of each token that counts, and which tokens those are. What does not count
    costs nothing and scales nothing."""
    counted = wanted != IGNORED
    chosen = logits[counted].float()
    return F.cross_entropy(chosen, wanted[counted], reduction="none"), counted


def training_arguments(settings: SceneLMOptimisation, folder: Path) -> TrainingArguments:
    """Ours as transformers' arguments."""
    return run_arguments(
        folder,
        best=BEST,
        labels="labels",
        seed=settings.seed,
        eval_strategy="steps",
        eval_steps=settings.every,
        save_strategy="steps",
        save_steps=settings.every,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.beta2,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        max_grad_norm=settings.clip,
        activation_checkpointing=settings.checkpointing,
        bf16=settings.bf16,
        ddp_find_unused_parameters=False,
        dataloader_num_workers=settings.workers,
    )
