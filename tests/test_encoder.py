"""The laws of the scene encoder: a scan in, scene tokens out."""

import argparse
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import random_look, scene_of, small_encoder_config
from rooms_fake import room
from torch import Tensor

from o2s import config as o2s_config
from o2s import encoder as encoder_module
from o2s.aggregator import AggregatorConfig
from o2s.detect import Detr3dConfig
from o2s.encoder import EncoderConfig, SceneEncoder, pad_regions, untrained_parts
from o2s.errors import InputError
from o2s.io import read_scene
from o2s.point_bert import PointBert, PointBertConfig
from o2s.scene import Boxes, Scene


@cache
def encoder() -> SceneEncoder:
    return SceneEncoder.build(small_encoder_config())


@cache
def scan(seed: int) -> Scene:
    made = room(seed, points=8000)
    return scene_of(made.points, made.colors)


@cache
def bare() -> Scene:
    """A floor on which nothing stands."""
    floor = torch.rand(2000, 3, generator=torch.Generator().manual_seed(0))
    return scene_of(floor * torch.tensor([4.0, 3, 0]))


def close(a: Tensor, b: Tensor, tolerance: float = 1e-5) -> bool:
    return torch.allclose(a, b, rtol=0, atol=tolerance)


def test_a_scan_becomes_tokens_boxes_and_features() -> None:
    (tokens,) = encoder()([scan(0)])
    config = encoder().config
    assert tokens.tokens.shape == (config.aggregator.queries, encoder().width)
    assert tokens.region_features.shape == (len(tokens.boxes), encoder().width)
    assert len(tokens.boxes) > 3
    assert tokens.tokens.isfinite().all()
    assert not tokens.tokens.requires_grad
    assert not encoder().training


def test_colours_are_told_where_the_region_encoder_reads_none() -> None:
    plain = PointBertConfig(
        channels=3, width=16, depth=2, heads=2, groups=8, neighbours=8, group_width=16, embedding=8
    )
    look = SceneEncoder.build(small_encoder_config(point_bert=plain)).look(scan(0))
    colored = encoder().look(scan(0))
    assert look.colors is not None
    assert colored.colors is not None
    assert len(look.colors.unique(dim=0)) > 3
    assert torch.equal(look.colors, colored.colors)


@pytest.mark.parametrize(
    "kind, name", [(PointBertConfig, "groups"), (PointBertConfig, "heads"), (Detr3dConfig, "heads")]
)
def test_sizes_of_nothing_are_named(kind: type, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0, expected"):
        kind(**{name: 0})


def test_heads_that_do_not_divide_the_width_are_named() -> None:
    config = small_encoder_config(aggregator=AggregatorConfig(heads=5))
    with pytest.raises(InputError, match=r"aggregator.heads is 5, expected to divide 32"):
        SceneEncoder.build(config)


def test_tokens_are_the_same_alone_and_in_a_batch() -> None:
    scenes = [scan(0), bare(), scan(1)]
    together = encoder()(scenes)
    assert len({len(each.boxes) for each in together}) == 3
    assert len(together[1].boxes) == 0
    assert together[1].tokens.isfinite().all()
    for scene, tokens in zip(scenes, together, strict=True):
        (alone,) = encoder()([scene])
        assert close(alone.tokens, tokens.tokens)
        assert torch.equal(alone.boxes.tensor, tokens.boxes.tensor)
        assert torch.equal(alone.region_features, tokens.region_features)
    assert encoder()([]) == []


def test_the_same_seed_builds_the_same_encoder_and_another_seed_another() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = SceneEncoder.build(small_encoder_config())
    assert torch.equal(torch.rand(3), expected)  # building leaves the caller's generator alone
    other = SceneEncoder.build(small_encoder_config(seed=1))
    assert torch.equal(again([scan(0)])[0].tokens, encoder()([scan(0)])[0].tokens)
    assert not close(other([scan(0)])[0].tokens, encoder()([scan(0)])[0].tokens, 1e-2)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_regions_than_the_limit_and_the_best_of_them(limit: int) -> None:
    limited = SceneEncoder.build(small_encoder_config(max_regions=limit))
    boxes = encoder().detect(scan(0))
    assert len(boxes) > limit
    assert torch.equal(limited.detect(scan(0)).tensor, boxes.best(limit).tensor)
    assert len(limited.look(scan(0)).boxes) == limit


def test_boxes_found_elsewhere_are_taken_instead_of_the_detectors() -> None:
    made = room(0, points=8000)
    count = len(made.boxes)
    far = torch.tensor([[90.0, 0, 0, 1, 1, 1]])
    rows = torch.cat([made.boxes, far])
    scores, labels = torch.ones(count + 1), ("chair",) * count + ("nowhere",)
    boxes = Boxes(rows[:, :3], rows[:, 3:], torch.zeros(count + 1), scores, labels)
    look = encoder().look(scan(0), boxes)
    assert look.boxes.labels == ("chair",) * count  # what holds no points is dropped
    assert torch.equal(look.boxes.tensor, boxes.tensor[:count])
    detected = encoder().look(scan(0), encoder().detect(scan(0)))
    assert torch.equal(detected.features, encoder().look(scan(0)).features)
    assert encoder().look(scan(0), Boxes.none()).features.shape == (0, encoder().width)


@pytest.mark.parametrize("regions_at_once", [1, 2, 5])
def test_chunks_do_not_change_the_features_and_progress_counts_them(
    monkeypatch: pytest.MonkeyPatch, regions_at_once: int
) -> None:
    expected = encoder().look(scan(0))
    size = encoder().point_bert.config
    values = regions_at_once * size.groups * size.neighbours * 2 * size.group_width
    monkeypatch.setattr(encoder_module, "_CHUNK_VALUES", values)
    calls: list[tuple[int, int]] = []
    look = encoder().look(scan(0), progress=lambda done, all_: calls.append((done, all_)))
    assert close(look.features, expected.features)
    count = len(expected.boxes)
    steps = [*range(regions_at_once, count, regions_at_once), count]
    assert calls == [(done, count) for done in steps]


def test_an_encoder_is_built_again_from_its_config() -> None:
    named = small_encoder_config(point_bert="tiny", detector="clusters")
    for original in (encoder(), SceneEncoder.build(named)):
        values = o2s_config.to_dict(original.config)
        again = SceneEncoder.build(o2s_config.from_dict(values, EncoderConfig))
        assert again.config == original.config
        again.load_state_dict(original.state_dict())
        assert close(again([scan(0)])[0].tokens, original([scan(0)])[0].tokens)
    with pytest.raises(ValueError, match="max_regions is 0, expected at least 1"):
        EncoderConfig(max_regions=0)


def test_padding_sets_scenes_side_by_side() -> None:
    looks = [random_look(seed, count) for seed, count in enumerate((2, 0, 3))]
    features, boxes, mask = pad_regions(looks)
    assert mask.tolist() == [[True, True, False], [False] * 3, [True] * 3]
    for i, look in enumerate(looks):
        assert torch.equal(features[i, mask[i]], look.features)
        assert torch.equal(boxes[i, mask[i]], look.boxes.tensor[:, :6])
    assert not features[~mask].any()
    assert not boxes[~mask].any()
    assert [x.shape[1] for x in pad_regions([looks[1]])] == [0, 0, 0]


PUBLIC = PointBertConfig(channels=6, width=64, depth=2, heads=1, group_width=16, embedding=8)


def write_ulip(path: Path, *without: str) -> PointBert:
    """A small checkpoint as ULIP writes its own, and the model in it."""
    torch.manual_seed(11)
    model = PointBert(PUBLIC)
    state = {f"module.point_encoder.{key}": value for key, value in model.state_dict().items()}
    state["module.pc_projection"] = state.pop("module.point_encoder.pc_projection")
    state["module.logit_scale"] = torch.ones(())
    for key in without:
        del state[key]
    arguments = argparse.Namespace(model="ULIP2_PointBERT_Colored", lr=3e-3)
    torch.save(
        {"epoch": 250, "state_dict": state, "best_acc1": np.float64(70.1), "args": arguments}, path
    )
    return model


def test_a_ulip_checkpoint_brings_weights_and_size(tmp_path: Path) -> None:
    path = tmp_path / "ulip.pt"
    model = write_ulip(path)
    config = small_encoder_config(point_bert_weights=str(path))
    built = SceneEncoder.build(config)
    assert built.config.point_bert == replace(PUBLIC, up="y")
    assert built.config.point_bert_weights is None  # the weights now belong to the encoder
    assert untrained_parts(config, built.detector) == ["aggregator"]
    for key, value in model.state_dict().items():
        assert torch.equal(built.point_bert.state_dict()[key], value)
    size = replace(small_encoder_config(), point_bert=PUBLIC)
    assert untrained_parts(size, built.detector) == ["region encoder", "aggregator"]


@pytest.mark.parametrize(
    "contents, message",
    [
        ({"state_dict": {"module.weight": torch.ones(2)}}, "not a ULIP Point-BERT checkpoint"),
        ({"epoch": 3, "module.pc_projection": torch.ones(2, 2)}, "expected a state_dict"),
        ({"state_dict": torch.ones(3)}, "expected a state_dict"),
        ({"state_dict": {"module.pc_projection": "text"}}, "expected a state_dict"),
        ({}, "not a ULIP Point-BERT checkpoint"),
        ([1, 2], "holds a list, expected a dict"),
    ],
)
def test_another_checkpoint_is_an_error_that_names_the_file(
    tmp_path: Path, contents: object, message: str
) -> None:
    path = tmp_path / "other.pt"
    torch.save(contents, path)
    with pytest.raises(InputError, match=message) as caught:
        SceneEncoder.build(small_encoder_config(point_bert_weights=str(path)))
    assert str(caught.value).startswith(f"{path}: ")


def test_a_missing_file_or_key_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "ulip.pt"
    config = small_encoder_config(point_bert_weights=str(path))
    with pytest.raises(InputError, match=r"ulip.pt: no such file"):
        SceneEncoder.build(config)
    write_ulip(path, "module.point_encoder.norm.bias")
    with pytest.raises(InputError, match=r"ulip.pt: .* missing \['norm.bias'\]"):
        SceneEncoder.build(config)


def test_where_the_file_has_its_origin_does_not_matter(tmp_path: Path) -> None:
    """Georeferenced scans lie hundreds of kilometres from it."""
    made = room(3, points=6000)
    # On a grid of 1/1024 m, shifts by whole metres are exact.
    points = (made.points.double() * 1024).round() / 1024
    tokens = []
    for shift in ((0, 0, 0), (431_000, -5_412_000, 312)):
        path = tmp_path / f"{shift[0]}.ply"
        write_cloud(path, points + torch.tensor(shift), made.colors)
        scene = read_scene(path, up="z", unit="m")
        assert scene.offset.abs().max() >= max(map(abs, shift)) - 10
        tokens.append(encoder()([scene])[0].tokens)
    assert close(*tokens, tolerance=1e-3)


def write_cloud(path: Path, points: Tensor, colors: Tensor) -> None:
    """An ascii PLY with all digits of its doubles."""
    rows = torch.cat([points, (255 * colors).round().double()], dim=1).tolist()
    names = [f"property double {axis}" for axis in "xyz"]
    names += [f"property uchar {color}" for color in ("red", "green", "blue")]
    header = ["ply", "format ascii 1.0", f"element vertex {len(rows)}", *names, "end_header"]
    lines = ["{!r} {!r} {!r} {:.0f} {:.0f} {:.0f}".format(*row) for row in rows]
    path.write_text("\n".join([*header, *lines, ""]))
