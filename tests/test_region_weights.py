"""Files of region encoders: what is written is read again, and nothing else is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from o2s.encoder import EncoderConfig, SceneEncoder, untrained_parts
from o2s.errors import InputError
from o2s.point_bert import PointBert, PointBertConfig
from o2s.region_weights import (
    PRETRAINED,
    load_region_encoder,
    read_region_encoder,
    write_region_encoder,
)
from o2s.regions import RegionConfig

SIZE = PointBertConfig(
    channels=7, width=32, depth=1, heads=2, groups=4, neighbours=4, group_width=16, embedding=8
)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, PointBert]:
    torch.manual_seed(0)
    model = PointBert(SIZE).eval()
    path = tmp_path / "encoder.safetensors"
    write_region_encoder(path, model, {"classes": ["chair", "lampe à pied"], "points": 64})
    return path, model


def test_what_is_written_is_read_again(written: tuple[Path, PointBert]) -> None:
    path, model = written
    found, facts = read_region_encoder(path)
    assert found.config == SIZE
    assert facts["classes"] == ["chair", "lampe à pied"]
    assert facts["points"] == 64
    points = torch.randn(3, 64, 7)
    torch.testing.assert_close(found.eval()(points), model(points), atol=2e-2, rtol=2e-2)
    for name, tensor in model.state_dict().items():
        half = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(found.state_dict()[name], half), name


def test_files_are_half_as_large_as_in_full_precision(written: tuple[Path, PointBert]) -> None:
    path, model = written
    bytes_in_full = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert path.stat().st_size < 0.75 * bytes_in_full + 4096


def test_a_scene_encoder_takes_the_size_from_the_file(written: tuple[Path, PointBert]) -> None:
    path, _ = written
    config = EncoderConfig(point_bert_weights=str(path))
    encoder = SceneEncoder.build(config)
    assert encoder.point_bert.config == SIZE
    assert encoder.width == 64
    assert "region encoder" not in untrained_parts(config, encoder.detector)


def test_public_weights_know_y_as_up(tmp_path: Path) -> None:
    config = PointBertConfig(width=64, depth=1, heads=1, group_width=16, embedding=32)
    state = PointBert(config).state_dict()
    named = {k if k == "pc_projection" else f"point_encoder.{k}": v for k, v in state.items()}
    save_file(named, tmp_path / "public.safetensors")
    assert load_region_encoder(str(tmp_path / "public.safetensors")).config == replace(
        config, up="y"
    )


def test_a_damaged_file_is_one_line(written: tuple[Path, PointBert], tmp_path: Path) -> None:
    path, _ = written
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut\.safetensors: not a readable"):
        load_region_encoder(str(cut))
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(InputError, match=r"other\.safetensors: not a ULIP Point-BERT"):
        load_region_encoder(str(other))
    with pytest.raises(InputError, match=r"other\.safetensors: expected a region encoder"):
        read_region_encoder(other)


def test_tensors_that_do_not_fit_their_size_are_refused(
    written: tuple[Path, PointBert], tmp_path: Path
) -> None:
    from safetensors import safe_open

    path, _ = written
    state = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    for changed in ({"cls_token": torch.zeros(1, 1, 16)}, {"surplus": torch.zeros(2)}):
        broken = tmp_path / "broken.safetensors"
        save_file({**state, **changed}, broken, metadata)
        with pytest.raises(InputError, match="tensors do not fit its size"):
            load_region_encoder(str(broken))


def test_another_number_of_points_than_learned_from_is_told(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "mine.safetensors"
    write_region_encoder(path, PointBert(SIZE), {"points": 300})
    for points, told in ((300, False), (1024, True)):
        caplog.clear()
        SceneEncoder.build(
            EncoderConfig(
                detector="clusters",
                point_bert_weights=str(path),
                regions=RegionConfig(points=points),
            )
        )
        assert ("expected encoder.regions.points=300" in caplog.text) == told


@pytest.mark.parametrize("name", PRETRAINED)
def test_what_comes_with_o2s_loads_by_its_name(name: str) -> None:
    model = load_region_encoder(name)
    assert model.embed(torch.rand(2, 100, model.config.channels)).isfinite().all()
    _, facts = read_region_encoder(PRETRAINED[name])
    assert len(facts["classes"]) > 25
    assert sum(p.numel() for p in model.parameters()) <= 6_000_000
