"""TR3D (Rukhovich et al., ICIP 2023): a fully sparse convolutional detector.

points -> cells -> SparseResNet -> TR3DNeck                 cells of two widths
       -> a box and class scores for each cell -> the best  Boxes

As in mmdet3d's projects/TR3D, whose checkpoints load; one that is trained here may be smaller and
look at more than colours.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from o2s.detect.detector import LearnedDetector
from o2s.detect.sparse_resnet import ConvNormRelu, SparseResNet
from o2s.ops.boxes import nms_3d
from o2s.ops.sparse_conv import GenerativeTransposedConv, SparseConv, SparseTensor, sparse_tensor
from o2s.ops.sparse_grid import LARGEST
from o2s.scene import Boxes, Scene

Input = Literal["color", "height", "offset"]
WIDTHS: Mapping[str, int] = {"color": 3, "height": 1, "offset": 3}
NO_COLOR = 0.5  # each channel of scans without colour

# The classes of published checkpoints in their order, and the level that learns each.
SCANNET = {
    **{"cabinet": 0, "bed": 1, "chair": 0, "sofa": 1, "table": 1, "door": 0, "window": 1},
    **{"bookshelf": 1, "picture": 0, "counter": 1, "desk": 1, "curtain": 1, "refridgerator": 0},
    **{"shower curtain": 0, "toilet": 0, "sink": 0, "bathtub": 1, "otherfurniture": 0},
}
SUNRGBD = {
    **{"bed": 1, "table": 1, "sofa": 1, "chair": 0, "toilet": 0, "desk": 1, "dresser": 0},
    **{"night_stand": 0, "bookshelf": 1, "bathtub": 0},
}
S3DIS = {"table": 1, "chair": 0, "sofa": 1, "bookcase": 1, "board": 0}
_PREFIX = re.compile(r"^head\.")
MANY_BLOCKS = 5_000  # cells of the coarsest stage, from which on it takes long
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tr3dConfig:
    """The size of a TR3D and how its boxes are chosen; the defaults are the published ones.

    Args:
        classes: what it finds.
        levels: for each class whether the finer (0) or the coarser cells (1) learn it.
        voxel: edge of the cells in metres.
        inputs: what a cell holds: RGB in [0, 1], its height in metres above the floor, the place of
            its points in it, in cells.
        mean: a cell holds the mean of its points, not the first of them.
        stem_width, stem_stride, pool, blocks, widths: see `SparseResNet`.
        neck_width: channels of the cells that boxes are read from.
        yaw: whether boxes are turned about z.
        proposals: how many cells are looked at, those of the highest scores.
        score: boxes of a lower score are dropped.
        nms_iou: of two boxes that overlap more than this, the better stays.
        nms_over: "class": only boxes of one class are compared, as published, so that an object may
            come with several labels; "all": all boxes, so that each place has one label.

    Raises:
        ValueError: a value is out of its range.
    """

    classes: Sequence[str] = field(default_factory=lambda: list(SCANNET))
    levels: Sequence[int] = field(default_factory=lambda: list(SCANNET.values()))
    voxel: float = 0.01
    inputs: Sequence[str] = field(default_factory=lambda: ["color"])
    mean: bool = False
    stem_width: int = 64
    stem_stride: int = 2
    pool: bool = True
    blocks: Sequence[int] = field(default_factory=lambda: [3, 4, 6, 3])
    widths: Sequence[int] = field(default_factory=lambda: [64, 128, 128, 128])
    neck_width: int = 128
    yaw: bool = False
    proposals: int = 1000
    score: float = 0.01
    nms_iou: float = 0.5
    nms_over: Literal["class", "all"] = "class"

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.classes) or not set(self.levels) <= {0, 1}:
            raise ValueError(f"levels is {self.levels}, expected 0 or 1 for each class")
        if not self.voxel > 0:
            raise ValueError(f"voxel is {self.voxel}, expected more than 0 metres")
        if not self.inputs or not set(self.inputs) <= set(WIDTHS):
            raise ValueError(f"inputs is {self.inputs}, expected some of {', '.join(WIDTHS)}")
        if len(self.blocks) != 4 or len(self.widths) != 4:
            raise ValueError("blocks and widths have four numbers each")
        if not 0 < self.nms_iou <= 1:
            raise ValueError(f"nms_iou is {self.nms_iou}, expected 0 < nms_iou <= 1")


@dataclass(frozen=True)
class Located:
    """What a TR3D says at each cell of both levels of a batch of clouds, V cells in all.

    `coded` are boxes as `decode_boxes` reads them, `logits` the scores of the classes.
    """

    points: Float[Tensor, "V 3"]
    level: Int64[Tensor, "V"]
    cloud: Int64[Tensor, "V"]
    coded: Float[Tensor, "V D"]
    logits: Float[Tensor, "V classes"]

    def of(self, cloud: int) -> "Located":
        """The cells of one cloud."""
        mine = self.cloud == cloud
        return Located(*(getattr(self, name)[mine] for name in self.__dataclass_fields__))


class Tr3d(LearnedDetector):
    """Finds objects of the classes it was trained on."""

    config: Tr3dConfig

    choices = ("proposals", "score", "nms_iou", "nms_over")

    def __init__(self, config: Tr3dConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or Tr3dConfig()
        self.classes = tuple(config.classes)
        self.needs_training = True
        self.backbone = SparseResNet(
            sum(WIDTHS[name] for name in config.inputs),
            config.stem_width,
            config.stem_stride,
            config.pool,
            config.blocks,
            config.widths,
        )
        self.neck = Tr3dNeck(config.widths[1:], config.neck_width)
        self.bbox_head = Tr3dHead(config.neck_width, len(config.classes), 8 if config.yaw else 6)

    def choose_as_published(self) -> None:
        self.config = replace(
            self.config, proposals=1000, score=0.01, nms_iou=0.5, nms_over="class"
        )

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Tr3d":
        """A published TR3D of mmdet3d (its keys, or the older prefix `head.`); it gives the objects
        of a scan, one box a place, and the published choice after `choose_as_published`.

        Raises:
            ValueError: keys or shapes are not those of a TR3D.
        """
        named = {_PREFIX.sub("bbox_head.", key): value for key, value in state.items()}
        for key in ("bbox_head.conv_cls.kernel", "bbox_head.conv_reg.kernel"):
            if key not in named:
                raise ValueError(f"no {key} among its keys, expected the state_dict of a TR3D")
        count = named["bbox_head.conv_cls.kernel"].shape[-1]
        known = {len(names): names for names in (SCANNET, SUNRGBD, S3DIS)}
        names = known.get(count, {f"class {i}": 0 for i in range(count)})
        yaw = named["bbox_head.conv_reg.kernel"].shape[-1] == 8
        config = Tr3dConfig(list(names), list(names.values()), yaw=yaw)
        detector = cls(replace(config, score=0.2, nms_iou=0.25, nms_over="all"))
        detector.load_published(named, "TR3D")
        return detector

    def forward(self, scene: Scene) -> Boxes:
        """The boxes of one scan in scene coordinates, best first."""
        return self.detect([scene])[0]

    @torch.no_grad()
    def detect(self, scenes: Sequence[Scene]) -> list[Boxes]:
        """The boxes of several scans; the same as one by one."""
        device = self.bbox_head.conv_cls.kernel.device
        reach = LARGEST * self.config.voxel  # strays farther off are in no cell
        near = [(scene.points.abs() <= reach).all(dim=1) for scene in scenes]
        scenes = [s if n.all() else s.select(n) for s, n in zip(scenes, near, strict=True)]
        points = [scene.points.to(device) for scene in scenes]
        colors = [None if s.colors is None else s.colors.to(device) for s in scenes]
        training = self.training
        located = self.eval().locate(points, colors)
        self.train(training)
        return [self.choose(located.of(cloud)) for cloud in range(len(scenes))]

    def locate(
        self,
        points: Sequence[Float[Tensor, "_ 3"]],
        colors: Sequence[Float[Tensor, "_ 3"] | None],
    ) -> Located:
        """Boxes and scores at the cells of a batch of clouds.

        Args:
            points: of each cloud, in metres, z up.
            colors: RGB in [0, 1]; None where a cloud has none.

        Raises:
            ValueError: a cloud that is wider than some 64,000 cells.
        """
        stages = self.backbone(self._cells(points, colors))
        coarse = stages[-1].grid
        if not self.training and len(coarse) > MANY_BLOCKS * len(points):
            logger.warning(
                "the scan fills %d blocks of %.1f m, a room some hundreds: finding objects may "
                "take minutes; cut a building into rooms, or say the unit (--unit)",
                *(len(coarse), coarse.stride * self.config.voxel),
            )
        levels = self.neck(stages)
        coded, logits = zip(*(self.bbox_head(level) for level in levels), strict=True)
        device = coded[0].device
        return Located(
            torch.cat([level.grid.coordinates * self.config.voxel for level in levels]).float(),
            torch.cat([torch.full((len(x),), i, device=device) for i, x in enumerate(coded)]),
            torch.cat([level.grid.cloud for level in levels]),
            torch.cat(coded),
            torch.cat(logits),
        )

    def choose(self, located: Located) -> Boxes:
        """The best boxes of one cloud after non-maximum suppression, on the CPU."""
        config = self.config
        scores = located.logits.float().sigmoid()
        best = scores.amax(dim=1)
        kept = best.topk(min(config.proposals, len(best))).indices
        boxes = decode_boxes(located.points[kept], located.coded[kept].float())
        cell, label = (scores[kept] > config.score).nonzero(as_tuple=True)
        boxes, scores = boxes[cell], scores[kept][cell, label]
        groups = label if config.nms_over == "class" else None
        kept = nms_3d(boxes, scores, config.nms_iou, groups)
        centres, sizes, headings = boxes[kept].cpu().split([3, 3, 1], dim=1)
        labels = tuple(self.classes[i] for i in label[kept].tolist())
        return Boxes(centres, sizes, headings[:, 0], scores[kept].cpu(), labels)

    def _cells(
        self,
        points: Sequence[Float[Tensor, "_ 3"]],
        colors: Sequence[Float[Tensor, "_ 3"] | None],
    ) -> SparseTensor:
        voxel = self.config.voxel
        together = torch.cat(list(points))
        counts = torch.tensor([len(p) for p in points], device=together.device)
        cloud = torch.repeat_interleave(torch.arange(len(points), device=together.device), counts)
        cells = (together / voxel).floor()
        inputs = []
        for name in self.config.inputs:
            if name == "color":
                filled = [
                    torch.full_like(p, NO_COLOR) if c is None else c
                    for p, c in zip(points, colors, strict=True)
                ]
                inputs.append(torch.cat(filled))
            elif name == "height":
                inputs.append(torch.cat([heights(p) for p in points])[:, None])
            else:
                inputs.append(together / voxel - cells - 0.5)
        features = torch.cat(inputs, dim=1)
        return sparse_tensor(cells.long(), cloud, features, len(points), mean=self.config.mean)


class Tr3dNeck(nn.Module):
    """From coarse to fine: a cell hears of what is around it. Fine and middle cells come out."""

    def __init__(self, widths: Sequence[int], width: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.up_block_2 = ConvNormRelu(GenerativeTransposedConv(coarse, middle, 3, stride=2))
        self.lateral_block_1 = ConvNormRelu(SparseConv(middle, middle, 3))
        self.out_block_1 = ConvNormRelu(SparseConv(middle, width, 3))
        self.up_block_1 = ConvNormRelu(GenerativeTransposedConv(middle, fine, 3, stride=2))
        self.lateral_block_0 = ConvNormRelu(SparseConv(fine, fine, 3))
        self.out_block_0 = ConvNormRelu(SparseConv(fine, width, 3))

    def forward(self, stages: Sequence[SparseTensor]) -> list[SparseTensor]:
        """The last three stages of the backbone -> levels 0 (finer) and 1."""
        fine, middle, coarse = stages[-3:]
        middle = self.lateral_block_1(middle + self.up_block_2(coarse))
        fine = self.lateral_block_0(fine + self.up_block_1(middle))
        return [self.out_block_0(fine), self.out_block_1(middle)]


class Tr3dHead(nn.Module):
    """A coded box and the scores of all classes, read from each cell alone."""

    def __init__(self, width: int, classes: int, numbers: int) -> None:
        super().__init__()
        self.conv_reg = SparseConv(width, numbers, 1, bias=True)
        self.conv_cls = SparseConv(width, classes, 1, bias=True)
        nn.init.normal_(self.conv_reg.kernel, std=0.01)
        nn.init.normal_(self.conv_cls.kernel, std=0.01)
        if self.conv_cls.bias is not None:
            nn.init.constant_(self.conv_cls.bias, -torch.tensor(99.0).log().item())  # 1 % at first

    def forward(self, x: SparseTensor) -> tuple[Float[Tensor, "V D"], Float[Tensor, "V classes"]]:
        """[V, F] -> [V, D], [V, classes]."""
        return self.conv_reg(x).features, self.conv_cls(x).features


def decode_boxes(points: Float[Tensor, "V 3"], coded: Float[Tensor, "V D"]) -> Float[Tensor, "V 7"]:
    """What the head says as boxes: centre, size, heading.

    Six numbers are the way from the cell to the centre and the logarithm of the size. Eight are
    those of FCAF3D (Rukhovich et al., ECCV 2022, eq. 4) for turned boxes: the last two are
    sin(2a) ln q and cos(2a) ln q, with q the length over the width and a the heading. As in mmdet3d
    the height is then the sum of two decoded sizes, with which its weights were trained.
    """
    centres, sizes = points + coded[:, :3], coded[:, 3:6].exp()
    if coded.shape[1] == 6:
        return torch.cat([centres, sizes, torch.zeros_like(sizes[:, :1])], dim=1)
    sine, cosine = coded[:, 6], coded[:, 7]
    around = sizes[:, 0] + sizes[:, 1]
    ratio = (sine**2 + cosine**2).clamp_min(1e-12).sqrt().exp()
    width = around / (1 + ratio)
    heading = 0.5 * torch.atan2(sine, cosine)
    turned = torch.stack([width, width * ratio, sizes[:, 2] + sizes[:, 1], heading], dim=1)
    return torch.cat([centres, turned], dim=1)


def heights(points: Float[Tensor, "N 3"]) -> Float[Tensor, "N"]:
    """Metres above the floor, which is where the lowest hundredth of the points ends."""
    if not len(points):
        return points[:, 2]
    lowest = max(1, len(points) // 100)
    return points[:, 2] - points[:, 2].kthvalue(lowest).values
