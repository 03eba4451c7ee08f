"""SceneEncoder: a scan in, scene tokens out.

Scene -> detector                   Boxes        R regions of interest
      -> crop_regions               Regions      [R, P, C]
      -> PointBert                  features     [R, F]
      -> QueryAggregator            SceneTokens  [Q, F]
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from o2s.aggregator import AggregatorConfig, QueryAggregator
from o2s.detect import (
    ClusterDetector,
    ClustersConfig,
    Detector,
    Detr3dConfig,
    LearnedDetector,
    Tr3dConfig,
)
from o2s.detector_weights import KINDS, load_detector
from o2s.errors import InputError
from o2s.point_bert import SIZES, PointBert, PointBertConfig
from o2s.region_weights import PRETRAINED, load_region_encoder, points_learned_from
from o2s.regions import RegionConfig, color_percentiles, crop_regions
from o2s.scene import Boxes, RegionFeatures, Scene, SceneTokens

# The widest layer of the mini-PointNet: keep it under 256 MB of float32.
_CHUNK_VALUES = 2**26


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncoderConfig:
    """Which parts a scene encoder has.

    `point_bert` is a size, by name or spelled out. `point_bert_weights` is "pretrained" for the
    weights that come with o2s for a named size, if there are any; one of
    `region_weights.PRETRAINED` by its name; null for none; or a file that `o2s train regions` wrote
    or a public ULIP checkpoint, which bring their own size. `detector_weights` says the same of a
    learned detector: "pretrained", null, or a file that `o2s train detector` wrote or a public
    checkpoint. Parts without weights begin at random, the same for the same `seed`.
    """

    detector: Literal["tr3d", "detr3d", "clusters"] = "tr3d"
    detector_weights: str | None = "pretrained"
    clusters: ClustersConfig = field(default_factory=ClustersConfig)
    tr3d: Tr3dConfig = field(default_factory=Tr3dConfig)
    detr3d: Detr3dConfig = field(default_factory=Detr3dConfig)
    max_regions: int = 64
    regions: RegionConfig = field(default_factory=RegionConfig)
    point_bert: Literal["tiny", "ulip1", "ulip2"] | PointBertConfig = "tiny"
    point_bert_weights: str | None = "pretrained"
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_regions < 1:
            raise ValueError(f"max_regions is {self.max_regions}, expected at least 1")

    @property
    def region_weights(self) -> str | None:
        """The file or the name of the region encoder's weights; None where it begins at random."""
        if self.point_bert_weights != "pretrained":
            return self.point_bert_weights
        named = isinstance(self.point_bert, str) and self.point_bert in PRETRAINED
        return str(self.point_bert) if named else None


# What tuning leaves as it is, by the beginnings of the names of its weights.
_FROZEN = {"detector": "detector.", "region encoder": "point_bert."}


def part_digests(state: Mapping[str, Tensor]) -> dict[str, str]:
    """A short digest of the weights of the detector and of the region encoder, in half precision,
    out of the state of a SceneEncoder."""
    found = {}
    for part, prefix in _FROZEN.items():
        digest = hashlib.sha256()
        for name in sorted(name for name in state if name.startswith(prefix)):
            digest.update(f"encoder.{name}".encode())
            value = state[name].detach().cpu()
            digest.update((value.half() if value.is_floating_point() else value).numpy().tobytes())
        found[part] = digest.hexdigest()[:16]
    return found


class SceneEncoder(nn.Module):
    """Detector, region encoder and aggregator, one after the other.

    `config` spells out the sizes in use, so that the same encoder can be built again.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        detector: Detector,
        point_bert: PointBert,
        aggregator: QueryAggregator,
    ) -> None:
        super().__init__()
        self.config = replace(config, point_bert=point_bert.config, point_bert_weights=None)
        if isinstance(detector, LearnedDetector):
            known = {config.detector: detector.config, "detector_weights": None}
            self.config = replace(self.config, **known)
        self.detector = detector
        self.point_bert = point_bert
        self.aggregator = aggregator

    @classmethod
    def build(cls, config: EncoderConfig, *, trust_pickle: bool = False) -> "SceneEncoder":
        """An encoder from its config, in evaluation mode.

        `trust_pickle` lets files of weights run code (`weights.load_checkpoint`). It is no
        part of the config: a file must not be able to trust itself.
        """
        size = config.point_bert
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            if config.region_weights is None:
                point_bert = PointBert(SIZES[size] if isinstance(size, str) else size)
            else:
                point_bert = load_region_encoder(config.region_weights, trust_pickle)
                learned, points = points_learned_from(config.region_weights), config.regions.points
                if learned not in (None, points):
                    log.warning(
                        "%s learned from %d points a region and now gets %d; expected "
                        "encoder.regions.points=%d",
                        *(config.region_weights, learned, points, learned),
                    )
            width, heads = point_bert.config.feature_width, config.aggregator.heads
            if width % heads:
                raise InputError(f"encoder.aggregator.heads is {heads}, expected to divide {width}")
            aggregator = QueryAggregator(config.aggregator, width)
        detector = build_detector(config, trust_pickle=trust_pickle)
        return cls(config, detector=detector, point_bert=point_bert, aggregator=aggregator).eval()

    @property
    def device(self) -> torch.device:
        """Where the modules compute. Records go in and come out on the CPU."""
        return self.aggregator.queries.device

    @property
    def width(self) -> int:
        """F, the width of region features and scene tokens."""
        return self.point_bert.config.feature_width

    def forward(self, scenes: Sequence[Scene]) -> list[SceneTokens]:
        """Scene tokens of each scan, the same alone and in a batch."""
        return self.gather([self.look(scene) for scene in scenes])

    @torch.no_grad()
    def detect(self, scene: Scene) -> Boxes:
        """At most `max_regions` boxes, best first."""
        return self.detector(scene).best(self.config.max_regions)

    @torch.no_grad()
    def look(
        self,
        scene: Scene,
        boxes: Boxes | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> RegionFeatures:
        """Detect the regions of one scan and encode each.

        Args:
            scene: the scan.
            boxes: regions of interest found elsewhere, instead of the detector's.
            progress: called with the number of regions done and the number of all.
        """
        regions = crop_regions(
            scene,
            self.detect(scene) if boxes is None else boxes,
            self.config.regions,
            channels=max(6, self.point_bert.config.channels),  # colours are told in any case
        )
        config = self.point_bert.config
        chunk = max(
            1, _CHUNK_VALUES // (config.groups * config.neighbours * 2 * config.group_width)
        )
        features: list[Float[Tensor, "_ F"]] = [torch.zeros(0, self.width)]
        for start in range(0, len(regions), chunk):
            points = regions.points[start : start + chunk, :, : config.channels].to(self.device)
            with evaluating(self.point_bert):
                features.append(self.point_bert(points).float().cpu())
            if progress is not None:
                progress(min(start + chunk, len(regions)), len(regions))
        colors = color_percentiles(regions.points).cpu()
        return RegionFeatures(regions.boxes, torch.cat(features), colors)

    @torch.no_grad()
    def gather(self, looks: Sequence[RegionFeatures]) -> list[SceneTokens]:
        """Scene tokens of regions that have been encoded already."""
        if not looks:
            return []
        features, boxes, mask = pad_regions(looks)
        device = self.device
        with evaluating(self.aggregator):
            tokens = self.aggregator(features.to(device), boxes.to(device), mask.to(device)).cpu()
        return [
            SceneTokens(t, look.boxes, look.features, look.colors)
            for t, look in zip(tokens, looks, strict=True)
        ]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, whatever mode the module is in."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def build_detector(config: EncoderConfig, *, trust_pickle: bool = False) -> Detector:
    """The detector alone, in evaluation mode."""
    if config.detector == "clusters":
        return ClusterDetector(config.clusters)
    if config.detector_weights is not None:
        detector = load_detector(config.detector, config.detector_weights, trust_pickle)
        choose(detector, config)
        return detector
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        module, _ = KINDS[config.detector]
        return module(getattr(config, config.detector)).eval()


def choose(detector: LearnedDetector, config: EncoderConfig) -> None:
    """Have a trained detector choose boxes as the config says, where that is not the default.

    Raises:
        InputError: the config wants a detector of another size.
    """
    try:
        detector.choose_as(getattr(config, config.detector))
    except ValueError as error:
        raise InputError(f"encoder.{config.detector}.{error}") from error


def untrained_parts(config: EncoderConfig, detector: Detector) -> list[str]:
    """The parts of a newly built encoder that hold random numbers."""
    parts = ["detector"] if detector.needs_training else []
    if config.region_weights is None:
        parts.append("region encoder")
    return [*parts, "aggregator"]


def pad_regions(
    looks: Sequence[RegionFeatures],
) -> tuple[Float[Tensor, "B R F"], Float[Tensor, "B R 6"], Bool[Tensor, "B R"]]:
    """Scenes of different size side by side: features, centre and size of boxes, real regions."""
    pad = torch.nn.utils.rnn.pad_sequence
    features = pad([look.features for look in looks], batch_first=True)
    boxes = pad([look.boxes.tensor[:, :6] for look in looks], batch_first=True)
    count = torch.tensor([len(look.boxes) for look in looks])
    mask = torch.arange(features.shape[1]) < count[:, None]
    return features, boxes, mask
