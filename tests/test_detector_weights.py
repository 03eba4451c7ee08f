"""Files of detectors: written, read, by name, and refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from o2s.detect.tr3d import Tr3d, Tr3dConfig
from o2s.detector_weights import PRETRAINED, load_detector, read_detector, write_detector
from o2s.encoder import EncoderConfig, SceneEncoder, build_detector, untrained_parts
from o2s.errors import InputError

SMALL = Tr3dConfig(
    ["cup"], [0], stem_width=4, blocks=[1, 1, 1, 1], widths=[4, 4, 4, 4], neck_width=4
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    write_detector(tmp_path / "small.safetensors", Tr3d(SMALL), {"note": "made up"})
    return tmp_path / "small.safetensors"


def test_what_is_written_comes_back(file: Path) -> None:
    torch.manual_seed(3)
    expected = Tr3d(SMALL).state_dict()
    detector, facts = read_detector(file)
    assert facts["note"] == "made up"
    assert detector.config == SMALL
    assert not detector.needs_training
    assert not detector.training
    for name, value in detector.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-3, rtol=1e-3)


def test_the_default_detector_comes_with_o2s() -> None:
    detector = build_detector(EncoderConfig())
    assert isinstance(detector, Tr3d)
    assert not detector.needs_training
    assert sum(p.numel() for p in detector.parameters()) <= 3_000_000
    assert {"chair", "table", "bed", "lamp"} <= set(detector.classes)
    assert PRETRAINED["tr3d"].stat().st_size < 8_000_000


def test_an_encoder_takes_a_file_and_spells_it_out(file: Path) -> None:
    config = EncoderConfig(detector="tr3d", detector_weights=str(file))
    encoder = SceneEncoder.build(config)
    assert encoder.config.tr3d == SMALL
    assert encoder.config.detector_weights is None
    assert "detector" not in untrained_parts(config, encoder.detector)
    again = SceneEncoder.build(encoder.config)
    assert isinstance(again.detector, Tr3d)
    assert again.detector.config == SMALL
    assert "detector" in untrained_parts(encoder.config, again.detector)


def test_what_is_chosen_can_be_set_beside_weights(file: Path) -> None:
    wanted = Tr3dConfig(score=0.4, nms_over="all")
    config = EncoderConfig(detector="tr3d", detector_weights=str(file), tr3d=wanted)
    detector = build_detector(config)
    assert isinstance(detector, Tr3d)
    assert detector.config == replace(SMALL, score=0.4, nms_over="all")
    config = replace(config, tr3d=Tr3dConfig(stem_width=8))
    with pytest.raises(InputError, match=r"encoder.tr3d.stem_width is 8, but the weights are of"):
        build_detector(config)
    same = replace(config, tr3d=Tr3dConfig(stem_width=SMALL.stem_width))
    assert isinstance(build_detector(same), Tr3d)


def test_without_weights_a_detector_is_seeded(file: Path) -> None:
    states = [
        build_detector(
            EncoderConfig(detector="tr3d", detector_weights=None, tr3d=SMALL, seed=seed)
        ).state_dict()
        for seed in (0, 0, 1)
    ]
    name = "backbone.conv1.kernel"
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


def test_a_public_checkpoint_loads(tmp_path: Path) -> None:
    torch.save({"state_dict": Tr3d().state_dict(), "meta": {}}, tmp_path / "tr3d.pth")
    detector = load_detector("tr3d", str(tmp_path / "tr3d.pth"))
    assert detector.classes[0] == "cabinet"
    assert detector.config.nms_over == "all"  # each object once, until AP is asked for
    detector.choose_as_published()
    assert detector.config == Tr3dConfig()


def test_files_of_something_else_are_refused(file: Path, tmp_path: Path) -> None:
    state = load_file(file)
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(InputError, match=r"bare.safetensors: lacks .* keys"):
        load_detector("tr3d", str(tmp_path / "bare.safetensors"))
    with pytest.raises(InputError, match="expected a detector that `o2s train detector` wrote"):
        read_detector(tmp_path / "bare.safetensors")
    torch.save({"state_dict": {"a": 1}}, tmp_path / "odd.pth")
    with pytest.raises(InputError, match=r"odd.pth: expected a state_dict"):
        load_detector("tr3d", str(tmp_path / "odd.pth"))
    with pytest.raises(InputError, match=r"nowhere.pth"):
        load_detector("tr3d", str(tmp_path / "nowhere.pth"))
