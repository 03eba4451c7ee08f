"""Aligning region features with the embeddings of texts and images: the objective of ULIP.

    points [B, P, C] -> PointBert.embed           p [B, E], unit vectors
    texts, images    -> frozen towers, cached     t, v [B, E], unit vectors
    loss = w_text * InfoNCE(p, t) + w_image * InfoNCE(p, v), each symmetric, one learned scale

ULIP: Xue et al., CVPR 2023 (arXiv 2212.05171), equations 1 and 2; github.com/salesforce/ULIP,
models/losses.py. InfoNCE with several positives averages over them, as SupCon's "out" form does
(Khosla et al., NeurIPS 2020, arXiv 2004.11362, equation 2).
"""

import math
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from o2s.point_bert import PointBert


@dataclass(frozen=True)
class AlignmentConfig:
    """The objective; the defaults are ULIP-1's, but that rows of one text are positives of each
    other and rows of one class no negatives, which matter where classes are few.

    Args:
        text_weight, image_weight: of the two halves of the loss.
        initial_scale: of the cosine similarities; learned as its logarithm.
        largest_scale: what the learned scale is clamped to.
        several_positives: rows with the same text are positives of each other.
        mask_same_class: other rows of the same class are left out of the negatives.

    Raises:
        ValueError: a value is out of its range.
    """

    text_weight: float = 0.5
    image_weight: float = 0.5
    initial_scale: float = 1 / 0.07
    largest_scale: float = 100.0
    several_positives: bool = True
    mask_same_class: bool = True

    def __post_init__(self) -> None:
        for name in ("text_weight", "image_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 0 or more")
        if self.text_weight + self.image_weight == 0:
            raise ValueError("text_weight and image_weight are both 0, expected one above it")
        if not 0 < self.initial_scale <= self.largest_scale < math.inf:
            raise ValueError(
                f"initial_scale is {self.initial_scale} and largest_scale {self.largest_scale}, "
                "expected 0 < initial_scale <= largest_scale"
            )


@dataclass(frozen=True)
class AlignmentLoss:
    """The loss, and its parts for the log."""

    loss: Float[Tensor, ""]
    text: Float[Tensor, ""]
    image: Float[Tensor, ""]


def limited_scale(logit_scale: nn.Parameter, largest: float) -> Float[Tensor, ""]:
    """The exponential of a learned number, which is itself set back to its limit where it is above:
    beyond it there would be no gradient to bring it down (ULIP does so after each step)."""
    with torch.no_grad():
        logit_scale.clamp_(max=math.log(largest))
    return logit_scale.exp()


class RegionAligner(nn.Module):
    """Point-BERT with the learned scale of its similarities to texts and images."""

    def __init__(self, point_bert: PointBert, config: AlignmentConfig) -> None:
        super().__init__()
        self.point_bert = point_bert
        self.objective = config
        self.logit_scale = nn.Parameter(torch.tensor(math.log(config.initial_scale)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What similarities are multiplied with, at most `largest_scale`."""
        return limited_scale(self.logit_scale, self.objective.largest_scale)

    def forward(
        self,
        points: Float[Tensor, "B P C"],
        texts: Float[Tensor, "B E"],
        images: Float[Tensor, "B E"],
        has_image: Bool[Tensor, "B"],
        text_ids: Int64[Tensor, "B"],
        classes: Int64[Tensor, "B"],
        share: float = 1.0,
    ) -> AlignmentLoss:
        """The loss of one batch, over the batches of all processes.

        Args:
            points: regions as Point-BERT takes them.
            texts, images: unit vectors of the towers; rows without an image are not read.
            has_image: which rows have one.
            text_ids: equal for equal texts.
            classes: the class of each region.
            share: of its groups that Point-BERT looks at.
        """
        embedded = self.point_bert.embed(points, share).float()
        with torch.autocast(embedded.device.type, enabled=False):  # products of bfloat16 are rough
            embedded, texts, images, has_image, text_ids, classes = (
                gather(t) for t in (embedded, texts, images, has_image, text_ids, classes)
            )
            config = self.objective
            own = torch.eye(len(embedded), dtype=torch.bool, device=embedded.device)
            same_text = text_ids[:, None] == text_ids
            positives = own | same_text if config.several_positives else own
            same_class = (classes[:, None] == classes) if config.mask_same_class else own
            text = info_nce(embedded, texts, self.scale, positives, same_class & ~positives)
            image = embedded.new_zeros(())
            if config.image_weight and has_image.any():
                shown = has_image.nonzero().squeeze(1)
                ignored = (same_class & ~own)[shown][:, shown]
                image = info_nce(
                    embedded[shown], images[shown], self.scale, own[shown][:, shown], ignored
                )
            loss = config.text_weight * text + config.image_weight * image
            return AlignmentLoss(loss, text, image)


def info_nce(
    a: Float[Tensor, "B E"],
    b: Float[Tensor, "B E"],
    scale: Float[Tensor, ""],
    positives: Bool[Tensor, "B B"],
    ignored: Bool[Tensor, "B B"],
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE: half the cross entropy of a against b, half that of b against a.

    Args:
        a, b: unit vectors; row i of `a` belongs to row i of `b`.
        scale: of the similarities, one over the temperature.
        positives: which pairs belong together, symmetric, the diagonal among them; the loss
            averages over those of a row.
        ignored: pairs that are neither positives nor negatives, symmetric.
    """
    similar = (scale * a @ b.T).masked_fill(ignored, -torch.inf)

    def half(logits: Float[Tensor, "B B"]) -> Float[Tensor, ""]:
        log_share = logits.log_softmax(dim=1).masked_fill(~positives, 0)
        return -(log_share.sum(dim=1) / positives.sum(dim=1)).mean()

    return (half(similar) + half(similar.T)) / 2


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes below each other, with gradient; the rows alone in one process.

    Every process computes the whole loss of the whole batch; averaging the gradients of all, as
    DistributedDataParallel does, then needs each process's own rows to count once a process,
    which the backward pass of this gathering provides by summing.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    if rows.is_floating_point():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(rows))
    found = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(found, rows.contiguous())
    return torch.cat(found)
