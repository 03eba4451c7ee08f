"""Pretraining the region encoder: Point-BERT against frozen text and image towers, as ULIP does.

sources of triplets -> texts and images embedded once, cached -> RegionBatches
                    -> RegionAligner, or RegionClassifier for comparison
                    -> transformers' Trainer; the best epoch on val is kept
"""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import TrainingArguments

from o2s.alignment import RegionAligner
from o2s.encoder import evaluating
from o2s.errors import InputError
from o2s.point_bert import PointBert
from o2s.train.checks import check_optimisation
from o2s.train.region_batches import BalancedSampler, RegionBatches
from o2s.train.run_folder import ScoredTrainer, run_arguments
from o2s.train.weight_average import FILE, WeightAverage, checkpoint_of

BEST = "eval_macro_top1"


@dataclass(frozen=True)
class RegionOptimisation:
    """How long and how fast it learns.

    Args:
        epochs: of `draws` draws each, or of one draw an object where that is null.
        balance: 0 draws classes as they are, 1 all equally often.
        warmup: share of the steps in which the learning rate rises; then it falls as a cosine to
            `final_learning_rate`.
        average: decay of the moving average of the weights, which is scored and kept in their place
            (see `weight_average`); 0 for none.
        least_groups: Point-BERT looks at a share of the groups between this and 1, drawn for each
            batch (see `PointBert.forward`); 1 for all of them.
        bf16: whether products are taken in bfloat16; null where the processor is made for it.
    """

    epochs: int = 30
    draws: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    weight_decay: float = 0.1
    beta2: float = 0.98
    warmup: float = 0.05
    clip: float = 1.0
    balance: float = 0.5
    label_share: float = 0.5
    average: float = 0.0
    least_groups: float = 1.0
    bf16: bool | None = None
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_optimisation(self)
        if not 0 < self.least_groups <= 1:
            raise ValueError(f"least_groups is {self.least_groups}, expected above 0 and up to 1")
        if self.draws is not None and self.draws < self.batch_size:
            raise ValueError(f"draws is {self.draws}, expected at least batch_size")


class RegionClassifier(nn.Module):
    """Point-BERT with a linear layer on its features, trained with labels only: what the same
    architecture can learn of these classes without any text or image."""

    def __init__(self, point_bert: PointBert, classes: int) -> None:
        super().__init__()
        self.point_bert = point_bert
        self.head = nn.Linear(point_bert.config.feature_width, classes)

    def forward(
        self, points: Tensor, classes: Int64[Tensor, "B"], share: float = 1.0, **_: Tensor
    ) -> Tensor:
        """The cross entropy of one batch; `share` of the groups is looked at."""
        return F.cross_entropy(self.head(self.point_bert(points, share)).float(), classes)


class RegionTrainer(ScoredTrainer):
    """transformers' Trainer with balanced draws, whose evaluation is classification on val."""

    def __init__(
        self,
        model: RegionAligner | RegionClassifier,
        train: RegionBatches,
        val: RegionBatches,
        class_texts: Float32[Tensor, "classes E"],
        candidates: Int64[Tensor, "K"],
        optimisation: RegionOptimisation,
        args: TrainingArguments,
    ) -> None:
        self.optimisation = optimisation
        self.val, self.candidates = val, candidates
        self.class_texts = class_texts[candidates]
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
        )
        self.average = WeightAverage(optimisation.average) if optimisation.average else None
        if self.average is not None:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise InputError("optimisation.average: expected 0 where processes share weights")
            self.add_callback(self.average)

    def _get_train_sampler(self, train_dataset: Any = None) -> BalancedSampler:
        train = train_dataset or self.train_dataset
        assert isinstance(train, RegionBatches)
        settings = self.optimisation
        return BalancedSampler(
            train.targets, balance=settings.balance, seed=settings.seed, length=settings.draws
        )

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices alone decay, as in ULIP: no scales of normalisations, nor that of similarities,
        which decay would draw to 1."""
        return [
            name
            for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and not name.endswith("bias")
        ]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        least = self.optimisation.least_groups
        share = least + (1 - least) * float(torch.rand(())) if least < 1 else 1.0
        found = model(**inputs, share=share)
        if isinstance(found, Tensor):
            return found
        return found.loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """The scores on val, of the averaged weights if there are such."""
        model = self.accelerator.unwrap_model(self.model)
        with nullcontext() if self.average is None else self.average.applied(model):
            return super().evaluate(*args, **kwargs)

    def _load_best_model(self) -> None:
        if self.average is None:
            super()._load_best_model()
        else:
            best = load_file(Path(str(self.state.best_model_checkpoint)) / FILE)
            self.accelerator.unwrap_model(self.model).load_state_dict(best)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self.average is not None and self.args.should_save:
            self.average.save(checkpoint_of(self.args, self.state))
        super()._save_checkpoint(model, trial)

    @torch.no_grad()
    def score(self, objects: Dataset[dict[str, Tensor]]) -> dict[str, float]:
        """Top-1 and top-5 among the candidates, over all objects and averaged over their classes.

        Of objects that are classes of their own, this is how often their own text is found.
        """
        model = self.accelerator.unwrap_model(self.model)
        loader = DataLoader(objects, batch_size=self.args.per_device_eval_batch_size)
        logits, targets = [], []
        with evaluating(model):
            for batch in loader:
                points = batch["points"].to(self.args.device)
                if isinstance(model, RegionClassifier):
                    every = model.head(model.point_bert(points)).float().cpu()
                    logits.append(every[:, self.candidates])
                else:
                    logits.append(model.point_bert.embed(points).cpu() @ self.class_texts.T)
                targets.append(torch.searchsorted(self.candidates, batch["classes"]))
        return top_k(torch.cat(logits), torch.cat(targets))


def training_arguments(settings: RegionOptimisation, folder: Path) -> TrainingArguments:
    """Ours as transformers' arguments."""
    return run_arguments(
        folder,
        best=BEST,
        labels="classes",
        seed=settings.seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta2=settings.beta2,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr": settings.final_learning_rate},
        warmup_steps=settings.warmup,
        max_grad_norm=settings.clip,
        bf16=has_bf16() if settings.bf16 is None else settings.bf16,
        dataloader_num_workers=settings.workers,
    )


def top_k(logits: Float32[Tensor, "N classes"], targets: Int64[Tensor, "N"]) -> dict[str, float]:
    """Shares right among the best one and five: of all objects, and averaged over classes."""
    order = logits.topk(min(5, logits.shape[1]), dim=1).indices == targets[:, None]
    found: dict[str, float] = {}
    for k in (1, 5):
        right = order[:, :k].any(dim=1).double()
        by_class = torch.stack([right[targets == t].mean() for t in targets.unique()])
        found[f"top{k}"] = float(right.mean())
        found[f"macro_top{k}"] = float(by_class.mean())
    return found


def has_bf16() -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    capability = getattr(torch.backends.cpu, "get_cpu_capability", lambda: "")()
    return "AVX512" in capability and torch.cpu._is_avx512_bf16_supported()
