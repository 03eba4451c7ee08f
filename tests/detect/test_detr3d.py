"""3DETR: what it is made of, published files, and what it makes of a scan."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from detr3d_fake import close, cloud, outputs_of, plain_farthest, scene, tiny
from torch import Tensor

from o2s.detect.detr3d import MEAN_COLOR, Detr3d, Detr3dConfig, extents
from o2s.detect.tr3d import SCANNET
from o2s.ops.boxes import box_iou


def manifest(masked: bool, color: bool, classes: int, bins: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a published checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {"pos_embedding.gauss_B": (3, 128)}

    def norm(name: str, width: int, batch: bool) -> None:
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})
        if batch:
            shapes.update({f"{name}.running_mean": (width,), f"{name}.running_var": (width,)})
            shapes[f"{name}.num_batches_tracked"] = ()

    def linear(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        shapes.update({f"{name}.weight": (outputs, inputs, *kernel), f"{name}.bias": (outputs,)})

    def points(name: str, *widths: int) -> None:
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            shapes[f"{name}.mlp_module.layer{i}.conv.weight"] = (outputs, inputs, 1, 1)
            norm(f"{name}.mlp_module.layer{i}.bn.bn", outputs, True)

    def layer(name: str, hidden: int, attentions: list[str]) -> None:
        for attention in attentions:
            shapes[f"{name}.{attention}.in_proj_weight"] = (768, 256)
            shapes[f"{name}.{attention}.in_proj_bias"] = (768,)
            linear(f"{name}.{attention}.out_proj", 256, 256)
        for i in range(len(attentions) + 1):
            norm(f"{name}.norm{i + 1}", 256, False)
        linear(f"{name}.linear1", 256, hidden)
        linear(f"{name}.linear2", hidden, 256)

    points("pre_encoder", 6 if color else 3, 64, 128, 256)
    for i in range(3):
        layer(f"encoder.layers.{i}", 128, ["self_attn"])
    if masked:
        points("encoder.interim_downsampling", 259, 256, 256, 256)
    for i in (0, 3) if masked else (0, 3, 6):
        shapes[f"encoder_to_decoder_projection.layers.{i}.weight"] = (256, 256, 1)
        norm(f"encoder_to_decoder_projection.layers.{i + 1}", 256, True)
    for i in (0, 2):
        linear(f"query_projection.layers.{i}", 256, 256, 1)
    for i in range(8):
        layer(f"decoder.layers.{i}", 256, ["self_attn", "multihead_attn"])
    norm("decoder.norm", 256, False)
    heads = {"sem_cls": classes + 1, "center": 3, "size": 3, "angle_cls": bins}
    for name, outputs in {**heads, "angle_residual": bins}.items():
        for i in (0, 4):
            shapes[f"mlp_heads.{name}_head.layers.{i}.weight"] = (256, 256, 1)
            norm(f"mlp_heads.{name}_head.layers.{i + 1}", 256, True)
        linear(f"mlp_heads.{name}_head.layers.8", 256, outputs, 1)
    return shapes


@pytest.mark.parametrize("masked, tensors, millions", [(False, 293, 7.31), (True, 305, 7.44)])
def test_keys_and_shapes_are_the_public_ones(masked: bool, tensors: int, millions: float) -> None:
    detector = Detr3d(Detr3dConfig(masked=masked))
    shapes = {name: tuple(value.shape) for name, value in detector.state_dict().items()}
    assert shapes == manifest(masked, False, 18, 1)
    assert len(shapes) == tensors
    assert round(sum(p.numel() for p in detector.parameters()) / 1e6, 2) == millions


def made_up(*facts: int) -> dict[str, Tensor]:
    return {key: torch.full(shape, 0.5) for key, shape in manifest(*facts).items()}


@pytest.mark.parametrize("whole", [True, False], ids=["checkpoint", "model"])
@pytest.mark.parametrize(
    "masked, color, classes, bins",
    [(True, False, 18, 1), (False, False, 10, 12), (True, True, 5, 4)],
)
def test_size_and_weights_come_from_a_file(
    masked: bool, color: bool, classes: int, bins: int, whole: bool
) -> None:
    state = made_up(masked, color, classes, bins)
    detector = Detr3d.from_state({"model": state, "epoch": 1080} if whole else state)
    config = detector.config
    assert (config.masked, config.use_color, config.angle_bins) == (masked, color, bins)
    assert len(set(detector.classes)) == len(config.classes) == classes
    assert (detector.classes == tuple(SCANNET)) == (classes == 18)
    assert (config.queries, config.num_points) == ((256, 40000) if bins == 1 else (128, 20000))
    assert not detector.needs_training
    assert not detector.training
    assert all(
        torch.equal(v.float(), torch.full_like(v, 0.5).float())
        for v in detector.state_dict().values()
        if v.is_floating_point()
    )


FIRST = "pre_encoder.mlp_module.layer0.conv.weight"
SCORES = "mlp_heads.sem_cls_head.layers.8.weight"


@pytest.mark.parametrize(
    "key, value, said",
    [
        (SCORES, None, f"no {SCORES} among its keys"),
        (FIRST, torch.zeros(4), f"no {FIRST} among its keys"),
        ("decoder.norm.bias", None, "lacks 1 keys, such as decoder.norm.bias"),
        ("head.bias", torch.zeros(1), "has beside a 3DETR's 1 keys, such as head.bias"),
        (FIRST, torch.zeros(64, 4, 1, 1), r"is of shape \[64, 4, 1, 1\], expected \[64, 3, 1, 1\]"),
        (SCORES, torch.zeros(1, 256, 1), "0 classes and 1 parts of a turn"),
    ],
)
def test_a_file_of_something_else_is_refused(key: str, value: Tensor | None, said: str) -> None:
    state = {**made_up(True, False, 18, 1), key: value}
    with pytest.raises(ValueError, match=said) as error:
        Detr3d.from_state({name: tensor for name, tensor in state.items() if tensor is not None})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"classes": []}, "classes is empty"),
        ({"queries": 0}, "queries is 0, expected 1 or more"),
        ({"tokens": 1}, "tokens is 1"),
        ({"width": 6}, "width is 6, expected an even multiple of 4"),
        ({"encoder_layers": 2}, "a masked encoder has 3"),
        ({"nms_iou": 0.0}, "nms_iou is 0.0"),
    ],
)
def test_configs_out_of_range_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Detr3dConfig(**change)


@torch.no_grad()
@pytest.mark.parametrize("bins", [1, 4])
def test_boxes_are_read_from_the_heads(bins: int) -> None:
    detector = tiny(angle_bins=bins)
    said = {"center": [1.0, 0.0, -2.0], "size": [0.5, -1.0, 3.0]}
    said |= {
        "angle_cls": [0.0, 0.0, 1.0, 0.0][:bins],
        "angle_residual": [9.0, 9.0, 0.5, 9.0][:bins],
    }
    for name, values in said.items():
        detector.get_parameter(f"mlp_heads.{name}_head.layers.8.weight").zero_()
        bias = detector.get_parameter(f"mlp_heads.{name}_head.layers.8.bias")
        bias.copy_(torch.tensor(values))
    points = cloud(0, 300) * torch.tensor([3.0, 2.0, 0.05]) + 1
    outputs = detector.outputs(points)
    places, _ = detector.encoder(*detector.pre_encoder(points, None))
    queries = places[0, plain_farthest(places[0], 8)]
    assert close(outputs.centres[0], queries + torch.tensor(said["center"]).sigmoid() - 0.5)
    extent = points[0].amax(dim=0) - points[0].amin(dim=0)
    assert extent[2] < 0.1
    sizes = torch.tensor(said["size"]).sigmoid() * extent.clamp_min(0.1)
    assert close(outputs.sizes[0], sizes.expand(8, 3))
    # Part 2 of 4 lies about half a turn, and 0.5 of a half part is 22.5 degrees more, clockwise.
    expected = math.pi - math.pi / 8 if bins == 4 else 0.0
    assert close(outputs.headings[0], torch.full((8,), expected))
    assert len(outputs.earlier) == 1
    assert not close(outputs.earlier[0].logits, outputs.logits)
    assert not detector.outputs(points, every_layer=False).earlier


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("bins", [1, 4])
def test_boxes_come_best_first_where_the_scan_is(masked: bool, bins: int) -> None:
    changes = {"masked": masked, "angle_bins": bins, "min_points": 1, "nms_iou": 0.9}
    detector, away = tiny(**changes), 50.0
    boxes = detector.train()(scene(away=away))
    assert detector.training
    assert len(boxes) > 3
    assert set(boxes.labels) == {"chair", "table"}
    assert torch.equal(boxes.scores, boxes.scores.sort(descending=True).values)
    assert ((boxes.centres - away > -0.5) & (boxes.centres - away < 3.5)).all()
    assert (boxes.sizes > 0).all()
    assert boxes.headings.any() == (bins > 1)
    again = detector.detect([scene(1), scene(away=away)])[1]
    assert torch.equal(again.tensor, boxes.tensor)
    assert not torch.equal(tiny(1, **changes)(scene(away=away)).tensor, boxes.tensor)


def test_a_batch_equals_its_members_one_by_one() -> None:
    detector, points = tiny(), torch.cat([cloud(0, 300), cloud(1, 300, 2.0)])
    with torch.no_grad():
        both, second = detector.outputs(points), detector.outputs(points[1:])
    for name in ("logits", "centres", "sizes", "fractions", "within"):
        assert close(getattr(both, name)[1:], getattr(second, name)), name


def test_scans_of_few_points_and_of_none_are_scans() -> None:
    detector = tiny(min_points=0)
    assert len(detector(scene(count=0))) == 0
    assert len(detector(scene(count=3))) > 0
    flat = replace(scene(), points=scene().points * torch.tensor([1.0, 1.0, 0.0]))
    assert detector(flat).tensor.isfinite().all()


def test_points_are_chosen_by_the_seed_and_colours_go_with_them() -> None:
    detector = tiny(use_color=True)
    points = detector.sample(scene())
    assert points.shape == (300, 6)
    assert torch.equal(points, detector.sample(scene(), seed=0))
    assert not torch.equal(points, detector.sample(scene(), seed=1))
    row = int((scene().points == points[7, :3]).all(dim=1).nonzero())
    colors = scene().colors
    assert colors is not None
    assert close(points[7, 3:], (colors[row] * 255 - torch.tensor(MEAN_COLOR)) / 256)
    assert not detector.sample(scene(colored=False))[:, 3:].any()
    with pytest.raises(ValueError, match="points have 3 channels, the network takes 6"):
        detector.outputs(cloud(0, 300))


def test_boxes_are_chosen_as_published() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 0, 1, 1, 1, 0],  # a chair
            [0.1, 0, 0, 1, 1, 1, 0],  # the same, less sure
            [0.1, 0, 0, 1, 1, 1, 0],  # there too, but a table
            [1.5, 0, 0, 1, 1, 1, 0],  # nothing is in it
            [0.0, 0, 0.1, 1, 1, 1, 0],  # hardly anything
        ]
    )
    nothing = torch.tensor([0.2, 0.4, 0.5, 0.0, 0.96])
    chair = torch.tensor([0.7, 0.6, 0.1, 0.5, 0.01]) * (1 - nothing)
    chances = torch.stack([chair, 1 - nothing - chair, nothing], dim=1)
    outputs = outputs_of(boxes, chances.clamp_min(1e-9).log())
    points = cloud(0, 40)[0] - 0.5
    found = tiny(score=0.05).choose(outputs, points)
    assert found.labels == ("chair", "table", "table", "chair")
    scores = [0.8 * 0.8 * 0.7, 0.5 * 0.5 * 0.9, 0.8 * 0.8 * 0.3, 0.5 * 0.5 * 0.1]
    assert found.scores.tolist() == pytest.approx(scores, abs=1e-5)
    assert torch.equal(found.tensor, boxes[[0, 2, 0, 2]])
    best = tiny(score=0.05, labels="best").choose(outputs, points)
    assert torch.equal(best.tensor, boxes[[0, 2]])
    assert best.labels == ("chair", "table")
    assert len(tiny(score=0.05, nms_iou=0.9).choose(outputs, points)) == 6
    assert len(tiny(score=0.05, min_points=0).choose(outputs, points)) == 6
    assert len(tiny(score=0.6).choose(outputs, points)) == 2
    assert len(tiny(score=0.05).choose(outputs, points[:4])) == 0


def test_turned_boxes_overlap_as_the_boxes_around_them() -> None:
    turned = torch.tensor([[0.0, 0, 0, 2, 0.1, 1, 0.785], [0.5, -0.5, 0, 2, 0.1, 1, 0.785]])
    assert box_iou(turned[:1], turned[1:]) == 0
    outputs = outputs_of(turned, torch.tensor([[3.0, 0, 0], [2.0, 0, 0]]))
    detector = tiny(angle_bins=4, min_points=0, labels="best")
    assert torch.equal(detector.choose(outputs, cloud(0, 9)[0]).tensor, turned[:1])


def test_the_box_around_a_turned_one_touches_its_corners() -> None:
    sizes, angle = torch.tensor([[2.0, 1.0, 3.0]]), torch.tensor([math.pi / 6])
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    expected = [2 * cos + sin, 2 * sin + cos, 3.0]
    assert extents(sizes, angle)[0].tolist() == pytest.approx(expected, abs=1e-5)
    assert close(extents(sizes, -angle), extents(sizes, angle + math.pi))
