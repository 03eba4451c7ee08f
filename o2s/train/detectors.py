"""Training a detector through transformers' Trainer.

DetectorScans -> DetectorModel: what the detector says, its loss -> Trainer
              -> the best epoch on val is kept

Several processes (`torchrun`) share the scans of a step and of an evaluation.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR
from transformers import TrainerCallback, TrainingArguments

from o2s.detect.detr3d import Detr3d
from o2s.detect.detr3d_loss import SetLossConfig, detr3d_loss
from o2s.detect.tr3d import Tr3d, Tr3dConfig
from o2s.detect.tr3d_loss import tr3d_loss
from o2s.encoder import evaluating
from o2s.evaluate.detection import score_detection
from o2s.evaluate.report import Report
from o2s.evaluate.scene_boxes import PredictedBoxes, TrueBoxes
from o2s.scene import Boxes
from o2s.train.detector_recipe import DetectorOptimisation
from o2s.train.detector_scans import DetectorScans, ScanExample, unnamed_scene
from o2s.train.run_folder import ScoredTrainer, run_arguments

BEST = "eval_map"
PROPOSALS = 64


class DetectorModel(nn.Module):
    """A detector whose output is its loss; `set_loss` is a 3DETR's."""

    def __init__(self, detector: Tr3d | Detr3d, set_loss: SetLossConfig) -> None:
        super().__init__()
        self.detector, self.set_loss = detector, set_loss

    def forward(
        self,
        points: Sequence[Tensor],
        colors: Sequence[Tensor | None],
        boxes: Sequence[Tensor],
        classes: Sequence[Tensor],
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of a batch of scans, with `loss`, their sum."""
        detector = self.detector
        if isinstance(detector, Tr3d):
            levels = torch.tensor(detector.config.levels, device=points[0].device)
            losses = tr3d_loss(detector.locate(points, colors), boxes, classes, levels)
        else:
            # Other points at each draw, of the seed that Trainer set.
            seeds = torch.randint(2**31, (len(points),)).tolist()
            sampled = [
                detector.sample(unnamed_scene(xyz, rgb), seed)
                for xyz, rgb, seed in zip(points, colors, seeds, strict=True)
            ]
            outputs = detector.outputs(torch.stack(sampled))
            losses = detr3d_loss(outputs, boxes, classes, self.set_loss)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}


class DetectorTrainer(ScoredTrainer):
    """transformers' Trainer, whose evaluation is average precision on val."""

    def __init__(
        self,
        model: DetectorModel,
        train: DetectorScans,
        val: DetectorScans,
        optimisation: DetectorOptimisation,
        args: TrainingArguments,
    ) -> None:
        self.val, self.optimisation = val, optimisation
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=val,
            data_collator=collate,
            callbacks=[_NextEpoch(train)],
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: Optimizer | None = None
    ) -> LRScheduler:
        settings = self.optimisation
        if settings.schedule == "step" and self.lr_scheduler is None:
            steps = [round(share * num_training_steps) for share in settings.drop_at]
            optimizer = optimizer or self.optimizer  # pyright: ignore[reportAssignmentType]
            assert isinstance(optimizer, Optimizer)
            self.lr_scheduler = MultiStepLR(optimizer, steps, gamma=0.1)
        return super().create_scheduler(num_training_steps, optimizer)

    def score(self, scans: DetectorScans) -> dict[str, float]:
        """Mean AP at IoU 0.25 (`ap25`) and 0.5 (`ap50`), their mean (`map`), and the share of all
        objects that 64 boxes find at 0.25 (`recall`)."""
        detector = self.accelerator.unwrap_model(self.model).detector
        in_use = detector.config
        detector.choose_as_published()
        count, mine = self.args.world_size, self.args.process_index
        found: list[tuple[PredictedBoxes, TrueBoxes]] = []
        with evaluating(detector):
            for index in range(mine, len(scans), count):
                example = scans[index]
                boxes = detector(example.scene)
                found.append((predicted(example.name, boxes), true(example, detector.classes)))
        detector.config = in_use
        if count > 1:
            found = gather_object(found)
        return scores([p for p, _ in found], [t for _, t in found], detector.classes)


def scores(
    predictions: Sequence[PredictedBoxes], truth: Sequence[TrueBoxes], classes: Sequence[str]
) -> dict[str, float]:
    """The figures of `DetectorTrainer.score`; classes that no scan has do not count."""
    report = score_detection(
        {boxes.scene_id: boxes for boxes in predictions},
        {boxes.scene_id: boxes for boxes in truth},
        classes=classes,
        recall_at=(PROPOSALS,),
        draws=0,
    )
    return report_figures(report)


def predicted(name: str, boxes: Boxes) -> PredictedBoxes:
    """What a detector found, for scoring."""
    rows = boxes.tensor.double().numpy(force=True)
    scores = boxes.scores.double().numpy(force=True)
    return PredictedBoxes(name, rows, scores, boxes.labels, (None,) * len(boxes))


def true(example: ScanExample, classes: tuple[str, ...]) -> TrueBoxes:
    """What there is in a scan, for scoring."""
    labels = tuple(classes[i] for i in example.labels.tolist())
    ids = tuple(str(i) for i in range(len(labels)))
    return TrueBoxes(example.name, ids, example.boxes.double().numpy(), labels)


def collate(examples: Sequence[ScanExample]) -> dict[str, list[Any]]:
    """Scans of different sizes side by side."""
    return {
        "points": [example.points for example in examples],
        "colors": [example.colors for example in examples],
        "boxes": [example.boxes for example in examples],
        "classes": [example.labels for example in examples],
    }


def training_arguments(settings: DetectorOptimisation, folder: Path) -> TrainingArguments:
    """Ours as transformers' arguments."""
    return run_arguments(
        folder,
        best=BEST,
        labels="classes",
        seed=settings.seed,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        ddp_find_unused_parameters=False,
        dataloader_num_workers=settings.workers,
    )


def turns_boxes(detector: Tr3d | Detr3d) -> bool:
    """Whether its boxes have headings."""
    config = detector.config
    return config.yaw if isinstance(config, Tr3dConfig) else config.angle_bins > 1


def report_figures(report: Report) -> dict[str, float]:
    """The means over the classes that there are, and the recall, of a report."""
    found: dict[str, float] = {}
    for table in report.tables:
        if table.title.startswith("AP"):
            values = [
                float(row.scores["AP"].value or 0)
                for row in table.rows
                if row.counts["truth"] and not row.name.startswith("mean of ")
            ]
            name = "ap" + table.title.rpartition("0.")[2].ljust(2, "0")
            found[name] = float(np.mean(values)) if values else 0.0
        else:
            (row,) = table.rows
            found["recall"] = float(row.scores["IoU 0.25"].value or 0)
    return {"map": (found["ap25"] + found["ap50"]) / 2, **found}


class _NextEpoch(TrainerCallback):
    """Tells the scans which epoch it is."""

    def __init__(self, scans: DetectorScans) -> None:
        self.scans = scans

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.scans.set_epoch(round(state.epoch or 0))
