"""TR3D: what it is made of, what it makes of a scan, and published files."""

import pytest
import torch
from torch import Tensor

from o2s.detect.tr3d import (
    SCANNET,
    Located,
    Tr3d,
    Tr3dConfig,
    decode_boxes,
    heights,
)
from o2s.scene import Scene

TINY = Tr3dConfig(
    classes=["chair", "table"],
    levels=[0, 1],
    voxel=0.1,
    inputs=["color", "height", "offset"],
    mean=True,
    stem_width=4,
    stem_stride=1,
    pool=False,
    blocks=[1, 1, 1, 1],
    widths=[4, 4, 8, 8],
    neck_width=8,
)


def scene(seed: int = 0, count: int = 400, colored: bool = True) -> Scene:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, 3, generator=generator) * torch.tensor([3.0, 2.0, 1.5])
    colors = torch.rand(count, 3, generator=generator) if colored else None
    return Scene("made up", points, colors, None, torch.eye(4, dtype=torch.float64))


def tiny(seed: int = 0, **changes: object) -> Tr3d:
    torch.manual_seed(seed)
    config = Tr3dConfig(**{**TINY.__dict__, **changes})  # pyright: ignore[reportArgumentType]
    detector = Tr3d(config).eval()
    torch.nn.init.normal_(detector.bbox_head.conv_cls.kernel, std=1.0)
    return detector


def test_the_published_size_has_the_published_keys() -> None:
    shapes = {name: tuple(t.shape) for name, t in Tr3d().state_dict().items()}
    assert shapes["backbone.conv1.kernel"] == (27, 3, 64)
    assert shapes["backbone.norm1.bn.running_mean"] == (64,)
    assert shapes["backbone.layer1.0.downsample.0.kernel"] == (64, 64)
    assert shapes["backbone.layer1.0.downsample.1.bn.weight"] == (64,)
    assert shapes["backbone.layer3.5.norm2.bn.bias"] == (128,)
    assert shapes["backbone.layer3.1.conv1.kernel"] == (27, 128, 128)
    assert shapes["neck.up_block_1.0.kernel"] == (27, 128, 128)
    assert shapes["neck.up_block_2.1.bn.num_batches_tracked"] == ()
    assert shapes["neck.lateral_block_0.0.kernel"] == (27, 128, 128)
    assert shapes["neck.out_block_1.0.kernel"] == (27, 128, 128)
    assert shapes["bbox_head.conv_reg.kernel"] == (128, 6)
    assert shapes["bbox_head.conv_reg.bias"] == (1, 6)
    assert shapes["bbox_head.conv_cls.kernel"] == (128, 18)
    # 33 convolutions of the stages and their 4 ways past, the stem, 6 of the neck, 2 of the head.
    blocks = 3 + 4 + 6 + 3
    assert sum(name.endswith("kernel") for name in shapes) == 2 * blocks + 4 + 1 + 6 + 2
    norms = 2 * blocks + 4 + 1 + 6
    assert len(shapes) == (2 * blocks + 4 + 1 + 6 + 2) + 2 + 5 * norms


@pytest.mark.parametrize("prefix", ["bbox_head.", "head."])
def test_published_weights_load_under_both_prefixes(prefix: str) -> None:
    torch.manual_seed(1)
    state = Tr3d().state_dict()
    state = {name.replace("bbox_head.", prefix): t for name, t in state.items()}
    detector = Tr3d.from_state(state)
    assert detector.classes == tuple(SCANNET)
    assert not detector.needs_training
    assert not detector.training
    kernel = detector.bbox_head.conv_cls.kernel
    assert torch.equal(kernel, state[f"{prefix}conv_cls.kernel"])


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    state = Tr3d().state_dict() | changes
    return {name.replace("__", "."): t for name, t in state.items() if t is not None}


@pytest.mark.parametrize(
    "state, said",
    [
        ({"a": torch.zeros(1)}, "no bbox_head.conv_cls.kernel"),
        (changed(extra=torch.zeros(1)), "1 keys, such as extra"),
        (changed(**{"backbone.conv1.kernel": None}), "lacks 1 keys, such as backbone.conv1.kernel"),
        (
            changed(**{"backbone.conv1.kernel": torch.zeros(27, 6, 64)}),
            r"backbone.conv1.kernel is of shape \[27, 6, 64\], expected \[27, 3, 64\]",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(state: dict[str, Tensor], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Tr3d.from_state(state)


@pytest.mark.parametrize("classes, numbers", [(10, 8), (5, 6), (7, 6)])
def test_number_of_classes_and_yaw_come_from_the_file(classes: int, numbers: int) -> None:
    config = Tr3dConfig(["x"] * classes, [0] * classes, yaw=numbers == 8)
    detector = Tr3d.from_state(Tr3d(config).state_dict())
    assert len(detector.classes) == len(set(detector.classes)) == classes
    assert detector.config.yaw == (numbers == 8)


def test_boxes_come_best_first_with_known_labels() -> None:
    boxes = tiny()(scene())
    assert len(boxes) > 3
    assert set(boxes.labels) <= {"chair", "table"}
    assert torch.equal(boxes.scores, boxes.scores.sort(descending=True).values)
    assert boxes.scores.min() > TINY.score
    assert not boxes.headings.any()


def test_scans_are_the_same_alone_and_together() -> None:
    detector = tiny()
    scenes = [scene(0), scene(1, colored=False), scene(2, 90)]
    together = detector.detect(scenes)
    for one, found in zip(scenes, together, strict=True):
        alone = detector(one)
        torch.testing.assert_close(found.tensor, alone.tensor, atol=1e-4, rtol=1e-4)
        assert found.labels == alone.labels


def test_detecting_leaves_the_mode_and_the_statistics() -> None:
    detector = tiny().train()
    before = {name: t.clone() for name, t in detector.state_dict().items()}
    detector(scene())
    assert detector.training
    assert all(torch.equal(t, before[name]) for name, t in detector.state_dict().items())


def test_a_scan_without_points_has_no_boxes() -> None:
    assert len(tiny()(scene(count=0))) == 0


def test_for_scoring_boxes_of_any_score_come() -> None:
    every = tiny()(scene())
    middle = float(every.scores.median())
    detector = tiny(nms_over="all", score=middle, proposals=9)
    assert detector(scene()).scores.min() > middle
    detector.choose_as_published()
    assert torch.equal(detector(scene()).tensor, every.tensor)


def test_a_place_has_one_label_if_all_boxes_are_compared() -> None:
    found = {name: tiny(nms_over=name)(scene()) for name in ("class", "all")}
    assert len(found["all"]) < len(found["class"])


def test_levels_are_two_widths_of_cells() -> None:
    made = scene()
    located = tiny().locate([made.points], [made.colors])
    for level, width in ((0, 0.4), (1, 0.8)):
        points = located.points[located.level == level]
        steps = points / width
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert len(points) == len(points.unique(dim=0)) > 0


def test_inputs_are_colour_height_and_place_in_the_cell() -> None:
    points = torch.tensor([[0.02, 0.05, 0.11], [0.04, 0.05, 0.11], [1.05, 0.0, 2.15]])
    colors = torch.tensor([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5], [0.25, 0.5, 0.75]])
    cells = tiny()._cells([points], [colors])
    assert cells.grid.coordinates.tolist() == [[0, 0, 1], [10, 0, 21]]
    expected = [[0.5, 1, 0.5, 0, -0.2, 0, -0.4], [0.25, 0.5, 0.75, 2.04, 0, -0.5, 0]]
    torch.testing.assert_close(cells.features, torch.tensor(expected), atol=1e-4, rtol=0)
    first = tiny(mean=False)._cells([points], [None])
    expected = [[0.5, 0.5, 0.5, 0, -0.3, 0, -0.4], [0.5, 0.5, 0.5, 2.04, 0, -0.5, 0]]
    torch.testing.assert_close(first.features, torch.tensor(expected), atol=1e-4, rtol=0)


def test_heights_are_above_the_lowest_hundredth() -> None:
    points = torch.zeros(200, 3)
    points[:, 2] = torch.arange(200) / 100 + 5
    points[7, 2] = -9.0  # one stray point below the floor
    assert heights(points)[-1] == pytest.approx(1.99, abs=1e-4)
    assert len(heights(points[:0])) == 0


def test_six_numbers_are_an_upright_box() -> None:
    coded = torch.tensor([[0.1, -0.2, 0.3, 0.0, 0.5, -1.0]])
    expected = [[1.1, 1.8, 3.3, 1.0, 1.6487, 0.3679, 0.0]]
    found = decode_boxes(torch.tensor([[1.0, 2.0, 3.0]]), coded)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("angle", [-1.2, 0.0, 0.4, 1.5])
def test_eight_numbers_are_a_turned_box(angle: float) -> None:
    ratio, width = torch.tensor(2.5), 0.8
    around = torch.tensor(width * (1 + 2.5))
    coded = torch.zeros(1, 8)
    coded[0, 3], coded[0, 4], coded[0, 5] = (around - 0.5).log(), torch.tensor(0.5).log(), 0.0
    coded[0, 6] = torch.sin(torch.tensor(2 * angle)) * ratio.log()
    coded[0, 7] = torch.cos(torch.tensor(2 * angle)) * ratio.log()
    box = decode_boxes(torch.zeros(1, 3), coded)[0]
    torch.testing.assert_close(box[3:], torch.tensor([0.8, 2.0, 1.5, angle]), atol=1e-4, rtol=0)


def test_only_the_best_cells_are_looked_at() -> None:
    cells = 20
    located = Located(
        torch.arange(cells)[:, None].float() * torch.tensor([10.0, 0, 0]),
        torch.zeros(cells, dtype=torch.long),
        torch.zeros(cells, dtype=torch.long),
        torch.zeros(cells, 6),
        torch.stack([torch.linspace(-2, 2, cells), torch.full((cells,), -9.0)], dim=1),
    )
    boxes = tiny(proposals=5).choose(located)
    assert boxes.centres[:, 0].tolist() == [190.0, 180.0, 170.0, 160.0, 150.0]
    assert set(boxes.labels) == {"chair"}


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"levels": [0]}, "levels"),
        ({"levels": [0, 2]}, "levels"),
        ({"voxel": 0.0}, "voxel"),
        ({"inputs": ["normals"]}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"widths": [1, 2]}, "widths"),
        ({"nms_iou": 0.0}, "nms_iou"),
    ],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tiny(**wrong)


def test_a_scan_that_will_take_long_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    detector = tiny()
    detector(scene())
    assert not caplog.records
    monkeypatch.setattr("o2s.detect.tr3d.MANY_BLOCKS", 3)
    detector(scene())
    assert "blocks of 1.6 m, a room some hundreds" in caplog.text
