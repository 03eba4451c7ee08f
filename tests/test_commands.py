"""The commands as a user meets them: what they print, write and refuse."""

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import o2s
from rooms_fake import room
from safetensors import safe_open
from safetensors.torch import load_file

from o2s.cli_demo import QUESTIONS, SAID
from o2s.io import Cloud, read_scene, write_ply, write_scene

SMALL = """
encoder:
  detector: clusters
  point_bert: {channels: 6, width: 16, depth: 2, heads: 2, groups: 8, group_width: 16}
  regions: {points: 64}
  aggregator: {queries: 4, heads: 2}
lora_moe: {r: 2}
"""


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, language_model: str) -> str:
    """A config that a test can afford, around the fake language model."""
    path = tmp_path_factory.mktemp("config") / "small.yaml"
    path.write_text(f"{SMALL}language_model: {language_model}\n")
    return str(path)


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("a scan") / "a room.ply", room(3, furniture=5).points)


def save(path: Path, points: torch.Tensor | np.ndarray) -> Path:
    write_ply(path, Cloud(np.asarray(points, dtype=np.float64)))
    return path


@pytest.mark.parametrize(
    "command", ["ask", "caption", "detect", "encode", "find", "routes", "demo", "weights"]
)
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = o2s(capsys, command, "--help")
    assert code == 0
    assert f"Example: o2s {command}" in out


def test_help_does_not_load_torch() -> None:
    code = "import sys; from o2s import cli; assert 'torch' not in sys.modules, 'loaded'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_detect_prints_boxes(capsys: pytest.CaptureFixture[str], scan: Path) -> None:
    code, out, _ = o2s(capsys, "detect", scan, "--detector", "clusters", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {"scan", "boxes"}
    assert found["scan"] == str(scan)
    for box in found["boxes"]:
        assert set(box) == {"centre", "size", "heading", "score", "label"}
        assert len(box["centre"]) == len(box["size"]) == 3
    scores = [box["score"] for box in found["boxes"]]
    assert scores == sorted(scores, reverse=True)
    table = o2s(capsys, "detect", scan)[1]
    assert "objects of a room" in table


def test_boxes_are_in_the_coordinates_of_an_upright_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    fake = room(5, furniture=5)
    near = save(tmp_path / "near.ply", fake.points)
    shifted = save(tmp_path / "shifted.ply", fake.points + torch.tensor([200.0, -100.0, 30.0]))
    options = ("--json", "--up", "z", "--detector", "clusters")
    boxes = json.loads(o2s(capsys, "detect", near, *options)[1])["boxes"]
    again = json.loads(o2s(capsys, "detect", shifted, *options)[1])["boxes"]
    for truth in fake.boxes:
        gaps = [math.dist(truth[:3].tolist(), box["centre"]) for box in boxes]
        assert min(gaps) < 0.25
    assert len(again) == len(boxes)
    for box, other in zip(boxes, again, strict=True):
        moved = [c - d for c, d in zip(other["centre"], (200, -100, 30), strict=True)]
        assert moved == pytest.approx(box["centre"], abs=0.02)


def test_other_axes_and_units_give_the_same_boxes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    points = room(5, furniture=5).points
    straight = save(tmp_path / "straight.ply", points)
    x, y, z = points.unbind(1)
    turned = save(tmp_path / "turned.ply", torch.stack([x, z, -y], dim=1) * 1000)
    expected = json.loads(o2s(capsys, "detect", straight, "--json")[1])["boxes"]
    code, out, err = o2s(capsys, "detect", turned, "--json")
    assert code == 0
    assert "turned upright" in err
    for box, other in zip(expected, json.loads(out)["boxes"], strict=True):
        assert other["size"] == pytest.approx(box["size"], abs=0.02)
        assert other["centre"] == pytest.approx(box["centre"], abs=0.02)


def test_ask_prints_the_answer(capsys: pytest.CaptureFixture[str], scan: Path, config: str) -> None:
    options = ("--config", config, "--max-new-tokens", 5)
    code, out, err = o2s(capsys, "ask", scan, "How many chairs?", "--json", *options)
    answer = json.loads(out)
    assert code == 0
    assert set(answer) == {"scan", "question", "answer", "objects", "route"}
    assert answer["question"] == "How many chairs?"
    assert answer["objects"] > 0
    assert sum(answer["route"]) == pytest.approx(1, abs=1e-3)
    assert sum(weight > 0 for weight in answer["route"]) == 2
    assert "untrained: region encoder, aggregator, projector" in err
    assert o2s(capsys, "ask", scan, "How many chairs?", *options)[1].strip() == answer["answer"]


def test_caption_describes_each_box(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    picture = tmp_path / "room.png"
    code, out, _ = o2s(
        capsys, "caption", scan, "--json", "--config", config, "--max-new-tokens", 3,
        "--picture", picture,
    )  # fmt: skip
    assert code == 0
    boxes = json.loads(out)["boxes"]
    expected = json.loads(o2s(capsys, "detect", scan, "--json", "--config", config)[1])["boxes"]
    assert [{k: v for k, v in box.items() if k != "caption"} for box in boxes] == expected
    assert all(isinstance(box["caption"], str) for box in boxes)
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("command", ["detect", "caption"])
def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], scan: Path, tmp_path: Path, command: str
) -> None:
    for name in (".", "room.jpg"):
        code, out, err = o2s(capsys, command, scan, "--picture", tmp_path / name)
        assert (code, out) == (2, "")
        assert "expected the name of a .png file" in err
        assert err.count("\n") == 1


def test_brackets_are_text_and_no_markup(
    capsys: pytest.CaptureFixture[str],
    scan: Path,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from o2s.llm.answering import SceneAnswerer

    said = ["[/b] closed", "[red]open"] * 9
    monkeypatch.setattr(SceneAnswerer, "caption", lambda _, look, **__: said[: len(look.boxes)])
    twin = tmp_path / "a [b] room.ply"
    twin.write_bytes(scan.read_bytes())
    code, out, _ = o2s(capsys, "caption", twin, "--config", config)
    assert code == 0
    assert "[/b]" in out
    assert "[red]" in out
    assert "objects of a [b] room" in out


def test_encode_writes_what_is_documented_and_does_not_repeat_itself(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    out_folder = tmp_path / "encoded"
    command = ("encode", scan, "--out", out_folder, "--config", config)
    assert o2s(capsys, *command)[0] == 0
    target = out_folder / "a room.safetensors"
    tensors = load_file(target)
    regions = len(tensors["scores"])
    assert regions > 0
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "tokens": (4, 32),
        "region_features": (regions, 32),
        "boxes": (regions, 7),
        "scores": (regions,),
        "region_colors": (regions, 9),
    }
    with safe_open(target, "pt") as file:
        facts = json.loads(file.metadata()["o2s"])
    assert facts["labels"] == ["object"] * regions
    assert facts["untrained"] == ["region encoder", "aggregator"]
    printed = json.loads(o2s(capsys, "detect", scan, "--json", "--config", config)[1])["boxes"]
    centres = torch.tensor([box["centre"] for box in printed], dtype=torch.float64)
    torch.testing.assert_close(tensors["boxes"][:, :3], centres, atol=1e-3, rtol=0)

    first = target.stat().st_mtime_ns
    assert o2s(capsys, *command)[0] == 0
    assert target.stat().st_mtime_ns == first
    assert o2s(capsys, *command, "--set", "encoder.seed=1")[0] == 0
    assert not torch.equal(load_file(target)["tokens"], tensors["tokens"])
    target.write_bytes(target.read_bytes()[:-10])
    assert o2s(capsys, *command)[0] == 0
    assert torch.equal(load_file(target)["tokens"], tensors["tokens"])
    assert os.listdir(out_folder) == [target.name]


def test_what_encode_wrote_is_no_scan(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    made = tmp_path / f"{scan.stem}.safetensors"
    assert o2s(capsys, "encode", scan, "--out", tmp_path, "--config", config)[0] == 0
    told = [
        o2s(capsys, *c, "--config", config)
        for c in (("detect", made), ("encode", scan, "--out", made))
    ]
    assert "an encoded scan, of `o2s encode`; expected the scan" in told[0][2]
    assert "is a file; expected a folder" in told[1][2]


def test_encode_names_what_fails_and_finishes_the_rest(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.ply"
    broken.write_bytes(scan.read_bytes()[:-100])
    out_folder = tmp_path / "encoded"
    code, _, err = o2s(capsys, "encode", broken, scan, "--out", out_folder, "--config", config)
    assert code == 2
    assert str(broken) in err
    assert "1 of 2 scans could not be encoded" in err
    assert os.listdir(out_folder) == ["a room.safetensors"]


def test_encode_never_overwrites_a_scan(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    prepared = write_scene(read_scene(scan), tmp_path / "room.safetensors")
    before = prepared.read_bytes()
    command = ("encode", prepared, "--out", tmp_path, "--config", config)
    code, _, err = o2s(capsys, *command)
    assert code == 2
    assert "is no encoded scan and would be overwritten" in err
    assert prepared.read_bytes() == before


def test_encode_refuses_scans_that_would_overwrite_each_other(
    capsys: pytest.CaptureFixture[str], scan: Path, tmp_path: Path
) -> None:
    twin = tmp_path / scan.name
    twin.write_bytes(scan.read_bytes())
    code, _, err = o2s(capsys, "encode", scan, twin, "--out", tmp_path / "encoded")
    assert code == 2
    assert "all would be written to a room.safetensors" in err
    assert not (tmp_path / "encoded").exists()


def test_how_fast_an_answer_came_is_said_on_demand(
    capsys: pytest.CaptureFixture[str], config: str, scan: Path
) -> None:
    options = ("--config", config, "--max-new-tokens", 4)
    code, answer, err = o2s(capsys, "ask", scan, "Why?", *options, "--verbose")
    assert code == 0
    assert re.search(r"first of [1-4] tokens after \d+\.\d\d s", err)
    assert o2s(capsys, "ask", scan, "Why?", *options)[1] == answer


def test_several_questions_are_a_conversation(
    capsys: pytest.CaptureFixture[str], config: str, scan: Path
) -> None:
    options = ("--config", config, "--max-new-tokens", 4, "--json")
    code, printed, _ = o2s(capsys, "ask", scan, "Why?", "And how?", *options)
    assert code == 0
    first, second = json.loads(printed)["answers"]
    assert [first["question"], second["question"]] == ["Why?", "And how?"]
    assert first["answer"] == json.loads(o2s(capsys, "ask", scan, "Why?", *options)[1])["answer"]
    code, printed, _ = o2s(capsys, "ask", scan, "Why?", "And how?", *options[:-1])
    assert code == 0
    assert first["answer"] in printed


def test_demo_leaves_its_results(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path
) -> None:
    code, out, err = o2s(capsys, "demo", "--out", tmp_path / "demo", "--config", config)
    assert code == 0
    names = {"objects.json", "answers.json", "tokens.safetensors", "scene.png"}
    for scan, questions in QUESTIONS.items():
        folder = tmp_path / "demo" / scan
        assert set(os.listdir(folder)) == names
        objects = json.loads((folder / "objects.json").read_text())
        answers = json.loads((folder / "answers.json").read_text())
        assert objects["boxes"]
        assert all("caption" in box for box in objects["boxes"])
        assert [answer["question"] for answer in answers["answers"]] == list(questions)
        assert objects["untrained"] == answers["untrained"] != []
        assert len(load_file(folder / "tokens.safetensors")["boxes"]) == len(objects["boxes"])
        assert f"objects of {scan}" in out
        assert f"{scan}: {SAID[scan]}" in out.replace("\n", " ")
    assert "untrained" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("ask", "nowhere.ply", "Why?"), "nowhere.ply"),
        (("detect", "nowhere.ply", "--config", "huge"), "huge: no such config"),
        (("detect", "nowhere.ply", "--set", "encoder.sed=1"), "encoder.sed: unknown key"),
        (("detect", "nowhere.ply", "--threads", "0"), "--threads is 0, expected at least 1"),
        (("encode", "x.ply", "--out", "y", "--device", "gpu9"), "--device gpu9: cannot be used"),
        (("detect", "nowhere.ply", "--device", "gpu9"), "--device gpu9: cannot be used"),
        (("detect", "nowhere.ply", "--up", "w"), "'--up'"),
        (("encode", "x.ply", "--out", "y", "--model", "nowhere"), "expected a folder of a saved"),
        (("weights", "gpt-17"), "no weights of this name; there are smollm2-135m"),
        (("see", "x.ply"), "No such command 'see'"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = o2s(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
    if "Usage:" not in err:
        assert len(err.splitlines()) == 1


class Surprise:
    """Not plain data."""


def test_a_checkpoint_with_more_than_data_needs_trust(
    capsys: pytest.CaptureFixture[str], scan: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "ulip.pt"
    torch.save({"state_dict": {}, "args": Surprise()}, checkpoint)
    key = f"encoder.point_bert_weights={checkpoint}"
    command = ("encode", scan, "--out", tmp_path / "encoded", "--set", key)
    code, _, err = o2s(capsys, *command)
    assert code == 2
    assert "add --trust-pickle" in err
    code, _, err = o2s(capsys, *command, "--trust-pickle")
    assert code == 2
    assert "not a ULIP Point-BERT checkpoint" in err


def test_an_unwritable_folder_is_one_line(
    capsys: pytest.CaptureFixture[str], scan: Path, config: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = o2s(capsys, "encode", scan, "--out", tmp_path / "file" / "x", "--config", config)
    assert code == 2
    assert "Not a directory" in err
    assert len(err.splitlines()) == 1


def test_weights_are_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("O2S_CACHE", str(tmp_path))
    code, out, _ = o2s(capsys, "weights")
    assert code == 0
    assert "smollm2-135m" in out
    assert "Apache-2.0" in out


@pytest.mark.slow
def test_the_real_language_model_answers_about_a_large_scan(tmp_path: Path) -> None:
    """A million points, end to end in a process of its own, under 6 GB."""
    fake = room(1, furniture=8, ceiling=True, points=1_000_000)
    scan = save(tmp_path / "large.ply", fake.points)
    script = (
        "import resource, subprocess, sys;"
        "done = subprocess.run(sys.argv[1:]);"
        "usage = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(usage.ru_maxrss, file=sys.stderr);"
        "sys.exit(done.returncode)"
    )
    command = ["-m", "o2s.cli", "ask", str(scan), "What do you see?", "--json", "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", script, sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["answer"]
    assert answer["objects"] >= 4
    assert "loading the language model" in done.stderr
    kilobytes = int(done.stderr.splitlines()[-1])
    assert kilobytes < 6e6


def test_a_scan_without_objects_is_told(
    capsys: pytest.CaptureFixture[str], config: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "one.npz", points=np.zeros((1, 3)))
    for command in (("ask", "how many?"), ("detect",), ("caption",)):
        name, *rest = command
        code, _, err = o2s(capsys, name, tmp_path / "one.npz", *rest, "--config", config)
        assert code == 0, err
        assert "no objects found in one (1 points" in err
    code, _, err = o2s(capsys, "ask", tmp_path / "one.npz", " ", "--config", config)
    assert code == 2
    assert "a question is empty" in err
