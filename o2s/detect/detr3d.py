"""3DETR (Misra et al., ICCV 2021): a transformer from points to a set of boxes.

    points [B, N, 3 or 6] -> set abstraction                   2048 tokens at points of the cloud
                          -> encoder, after whose first layer
                             the masked one keeps one half     [B, T, width]
                          -> farthest tokens as queries        [B, Q, width]
                          -> decoder, queries look at tokens   [L, B, Q, width], after each layer
                          -> five heads                        Detr3dOutputs -> Boxes

As in github.com/facebookresearch/3detr, whose checkpoints load: modules are named as there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from o2s.detect.detector import LearnedDetector
from o2s.detect.detr3d_layers import (
    MASK_DISTANCES,
    Decoder,
    Encoder,
    FourierEmbedding,
    MaskedEncoder,
    Mlp,
    SetAbstraction,
)
from o2s.detect.tr3d import SCANNET, SUNRGBD
from o2s.ops.boxes import nms_3d, points_in_boxes
from o2s.ops.footprints import extents
from o2s.ops.sampling import farthest_point_sample, resample
from o2s.scene import Boxes, Scene

# Subtracted from RGB in 0 to 255 before it is divided by 256 (datasets/scannet.py).
MEAN_COLOR = (109.8, 97.2, 83.8)
LEAST_EXTENT = 0.1  # metres; sizes are fractions of a scan that is at least so wide


@dataclass(frozen=True)
class Detr3dConfig:
    """The size of a 3DETR and how its boxes are chosen; the defaults are 3DETR-m on ScanNet.

    Args:
        classes: what it finds.
        masked: whether tokens of the encoder see only those near to them (3DETR-m).
        use_color: whether points have a colour; scans without one get the mean colour.
        angle_bins: parts that a full turn is cut into; 1 for boxes that are never turned.
        num_points: how many points of a scan it looks at.
        tokens: how many of these become tokens.
        queries: how many boxes it proposes.
        width: of tokens and queries.
        heads: of every attention.
        encoder_layers, encoder_hidden: of the encoder; a masked one has three layers.
        decoder_layers, decoder_hidden: of the decoder.
        encoder_dropout, decoder_dropout, head_dropout: in training.
        score: boxes are dropped where something is there with no more than this probability.
        min_points: boxes that hold fewer of the points are dropped.
        nms_iou: of two boxes of one class that overlap more than this, the likelier stays.
        labels: "all": every box comes once with each class, as the published evaluation has it;
            "best": once, with its likeliest class.
        seed: chooses the points.

    Raises:
        ValueError: a value is out of its range.
    """

    classes: Sequence[str] = field(default_factory=lambda: list(SCANNET))
    masked: bool = True
    use_color: bool = False
    angle_bins: int = 1
    num_points: int = 40_000
    tokens: int = 2048
    queries: int = 256
    width: int = 256
    heads: int = 4
    encoder_layers: int = 3
    encoder_hidden: int = 128
    decoder_layers: int = 8
    decoder_hidden: int = 256
    encoder_dropout: float = 0.3
    decoder_dropout: float = 0.1
    head_dropout: float = 0.3
    score: float = 0.05
    min_points: int = 5
    nms_iou: float = 0.25
    labels: Literal["all", "best"] = "all"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError("classes is empty, expected one at least")
        layers = ("encoder_layers", "decoder_layers")
        for name in ("angle_bins", "num_points", "queries", "width", "heads", *layers):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected 1 or more")
        if self.tokens < 2:
            raise ValueError(f"tokens is {self.tokens}, expected 2 or more")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width is {self.width}, expected an even multiple of {self.heads}")
        if self.masked and self.encoder_layers != len(MASK_DISTANCES):
            raise ValueError(f"encoder_layers is {self.encoder_layers}, a masked encoder has 3")
        if not 0 < self.nms_iou <= 1:
            raise ValueError(f"nms_iou is {self.nms_iou}, expected 0 < nms_iou <= 1")


@dataclass(frozen=True)
class Detr3dOutputs:
    """What a 3DETR says of a batch of clouds after one layer of its decoder.

    Centres and sizes are in metres, headings in radians as in `Boxes`. The last logit is that of no
    object. `fractions` are the sizes over the extent of the cloud; `bins` are logits of the parts
    of a turn, `within` how far the heading is from the middle of each, in half parts, both
    clockwise as published. `earlier` are the layers before, where they were asked for.
    """

    logits: Float[Tensor, "B Q K"]
    centres: Float[Tensor, "B Q 3"]
    sizes: Float[Tensor, "B Q 3"]
    headings: Float[Tensor, "B Q"]
    fractions: Float[Tensor, "B Q 3"]
    bins: Float[Tensor, "B Q A"]
    within: Float[Tensor, "B Q A"]
    low: Float[Tensor, "B 3"]  # the lowest coordinates of the clouds
    high: Float[Tensor, "B 3"]
    earlier: tuple["Detr3dOutputs", ...] = ()


class Detr3d(LearnedDetector):
    """Finds objects of the classes it was trained on."""

    config: Detr3dConfig

    choices = ("num_points", "score", "min_points", "nms_iou", "labels", "seed")

    def __init__(self, config: Detr3dConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or Detr3dConfig()
        self.classes = tuple(config.classes)
        self.needs_training = True
        width, drop = config.width, config.head_dropout
        channels = 6 if config.use_color else 3
        self.pre_encoder = SetAbstraction(config.tokens, 0.2, 64, [channels, 64, 128, width])
        layer = width, config.heads, config.encoder_hidden, config.encoder_dropout
        if config.masked:
            self.encoder = MaskedEncoder(config.tokens // 2, *layer)
        else:
            self.encoder = Encoder(config.encoder_layers, *layer)
        hidden = [width] if config.masked else [width, width]
        self.encoder_to_decoder_projection = Mlp([width, *hidden, width], norm=True, whole=True)
        self.pos_embedding = FourierEmbedding(width)
        self.query_projection = Mlp([width, width, width], norm=False, whole=True)
        layer = width, config.heads, config.decoder_hidden, config.decoder_dropout
        self.decoder = Decoder(config.decoder_layers, *layer)
        numbers = {
            "sem_cls_head": len(config.classes) + 1,
            "center_head": 3,
            "size_head": 3,
            "angle_cls_head": config.angle_bins,
            "angle_residual_head": config.angle_bins,
        }
        self.mlp_heads = nn.ModuleDict(
            {name: Mlp([width, width, width, n], True, False, drop) for name, n in numbers.items()}
        )

    def choose_as_published(self) -> None:
        self.config = replace(self.config, score=0.05, min_points=5, nms_iou=0.25, labels="all")

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Detr3d":
        """A published 3DETR: its checkpoint or the `model` in it. It gives each box once, with its
        likeliest class, and the published choice after `choose_as_published`.

        Whether it is masked, looks at colours and turns boxes, and how many classes it knows, is
        read off keys and shapes. On SUN RGB-D the published ones propose 128 boxes from 20,000
        points.

        Raises:
            ValueError: keys or shapes are not those of a 3DETR.
        """
        state = state.get("model", state)
        head = "mlp_heads.{}.layers.8.weight"
        keys = [head.format("sem_cls_head"), head.format("angle_cls_head")]
        keys.append("pre_encoder.mlp_module.layer0.conv.weight")
        for key in keys:
            if key not in state or state[key].ndim < 2:
                raise ValueError(f"no {key} among its keys, expected the state_dict of a 3DETR")
        count, bins = len(state[keys[0]]) - 1, len(state[keys[1]])
        if count < 1 or bins < 1:
            raise ValueError(f"{count} classes and {bins} parts of a turn, expected 1 or more")
        known = {len(names): list(names) for names in (SCANNET, SUNRGBD)}
        masked = any(key.startswith("encoder.interim_downsampling.") for key in state)
        config = Detr3dConfig(
            known.get(count, [f"class {i}" for i in range(count)]),
            masked=masked,
            use_color=state[keys[2]].shape[1] == 6,
            angle_bins=bins,
            num_points=40_000 if bins == 1 else 20_000,
            queries=256 if bins == 1 else 128,
            encoder_dropout=0.3 if masked and bins == 1 else 0.1,
            labels="best",
        )
        detector = cls(config)
        detector.load_published(state, "3DETR")
        return detector

    @torch.no_grad()
    def forward(self, scene: Scene) -> Boxes:
        """The boxes of one scan in scene coordinates, best first, on the CPU."""
        if not len(scene):
            return Boxes.none()
        points = self.sample(scene)
        training = self.training
        outputs = self.eval().outputs(points[None], every_layer=False)
        self.train(training)
        return self.choose(outputs, points[:, :3].contiguous())

    def sample(self, scene: Scene, seed: int | None = None) -> Float32[Tensor, "K C"]:
        """`num_points` points of a scan as the network wants them, on its device.

        Args:
            scene: one with a point at least.
            seed: chooses the points; None is that of the config.
        """
        config = self.config
        index = resample(len(scene), config.num_points, config.seed if seed is None else seed)
        index = index.to(scene.points.device)
        points = scene.points[index]
        if config.use_color:
            colors = torch.zeros_like(points)
            if scene.colors is not None:
                mean = torch.tensor(MEAN_COLOR, device=points.device)
                colors = (scene.colors[index] * 255 - mean) / 256
            points = torch.cat([points, colors], dim=1)
        return points.to(self.pos_embedding.gauss_B.device)

    def outputs(self, points: Float32[Tensor, "B N C"], every_layer: bool = True) -> Detr3dOutputs:
        """What the last layer of the decoder says, and those before it where `every_layer`.

        Args:
            points: xyz in metres, z up, and RGB less its mean if the network looks at colours.

        Raises:
            ValueError: the number of channels is not the network's.
        """
        channels = 6 if self.config.use_color else 3
        if points.shape[-1] != channels:
            given = points.shape[-1]
            raise ValueError(f"points have {given} channels, the network takes {channels}")
        xyz = points[..., :3].contiguous()
        low, high = xyz.amin(dim=1), xyz.amax(dim=1)
        colors = points[..., 3:] if channels == 6 else None
        places, tokens = self.encoder(*self.pre_encoder(xyz, colors))
        tokens = self.encoder_to_decoder_projection(tokens)
        chosen = farthest_point_sample(places, self.config.queries, skip_near_origin=True)
        queries = places.gather(1, chosen[..., None].expand(-1, -1, 3))
        asked = self.query_projection(self.pos_embedding(queries, low, high))
        said = self.decoder(tokens, self.pos_embedding(places, low, high), asked)
        layers = self._read(said if every_layer else said[-1:], queries, low, high)
        return replace(layers[-1], earlier=tuple(layers[:-1]))

    def choose(self, outputs: Detr3dOutputs, points: Float32[Tensor, "N 3"]) -> Boxes:
        """The best boxes of a batch of one cloud, on the CPU, as utils/ap_calculator.py has them.

        Boxes with too few points fall, then those that overlap a likelier one of the same likeliest
        class; turned boxes overlap as the upright boxes around them do. The score of a class is its
        probability times that of any object.
        """
        config = self.config
        chances = outputs.logits[0].float().softmax(dim=1)
        anything, chances = 1 - chances[:, -1], chances[:, :-1]
        centres, sizes, headings = outputs.centres[0], outputs.sizes[0], outputs.headings[0]
        boxes = torch.cat([centres, sizes, headings[:, None]], dim=1).float()
        kept = points_in_boxes(points, boxes).sum(dim=1) >= config.min_points
        kept = kept.nonzero()[:, 0]
        around = torch.cat([centres, extents(sizes, headings), torch.zeros_like(boxes[:, 6:])], 1)
        likeliest = chances[kept].argmax(dim=1)
        kept = kept[nms_3d(around.float()[kept], anything[kept], config.nms_iou, likeliest)]
        kept = kept[anything[kept] > config.score]
        scores = chances[kept] * anything[kept, None]
        best = 1 if config.labels == "best" else len(self.classes)
        scores, labels = scores.topk(best, dim=1)
        order = scores.flatten().argsort(descending=True, stable=True)
        found = boxes[kept][order // best].cpu()
        names = tuple(self.classes[i] for i in labels.flatten()[order].tolist())
        return Boxes(found[:, :3], found[:, 3:6], found[:, 6], scores.flatten()[order].cpu(), names)

    def _read(
        self,
        said: Float[Tensor, "L B Q D"],
        queries: Float[Tensor, "B Q 3"],
        low: Float[Tensor, "B 3"],
        high: Float[Tensor, "B 3"],
    ) -> list[Detr3dOutputs]:
        """What the heads make of queries after each layer of the decoder."""
        logits, offsets, sizes, bins, within = (head(said) for head in self.mlp_heads.values())
        centres = queries + offsets.sigmoid() - 0.5
        fractions = sizes.sigmoid()
        sizes = fractions * (high - low).clamp_min(LEAST_EXTENT)[:, None]
        headings = torch.zeros_like(centres[..., 0])
        if self.config.angle_bins > 1:
            part = bins.argmax(dim=-1, keepdim=True)
            clockwise = (2 * part + within.gather(-1, part))[..., 0] * math.pi / bins.shape[-1]
            headings = torch.where(clockwise > math.pi, 2 * math.pi, 0) - clockwise
        fields = (logits, centres, sizes, headings, fractions, bins, within)
        layers = zip(*fields, strict=True)
        return [Detr3dOutputs(a, b, c, d, e, f, g, low, high) for a, b, c, d, e, f, g in layers]
