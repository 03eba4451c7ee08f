"""`o2s prepare` as a user meets it."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import o2s, untimed
from scannet_fake import make_scan, write_download, write_stream


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("a download")
    raw = write_download(root / "raw", {"train": ["scene0000_00"], "val": ["scene0001_00"]})
    write_stream(make_scan("scene0000_00", 0), raw / "scans")
    return raw


@pytest.mark.parametrize("command", ["scannet", "s3dis", "ply"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = o2s(capsys, "prepare", command, "--help")
    assert code == 0
    assert f"Example: o2s prepare {command}" in out


def test_scannet_with_everything(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    out_folder = tmp_path / "out"
    options = ("--workers", 1, "--also", "votenet", "--also", "pointcept", "--split", "train")
    frames = ("--frames", "every=3", "--crops", 2)
    command = ("scannet", raw, "--out", out_folder, *options, *frames)
    code, out, err = o2s(capsys, "prepare", *command)
    assert (code, untimed(err)) == (0, "")
    assert out == f"1 prepared, 0 already there, 0 failed, in {out_folder}\n"
    for name in (
        "votenet/scannet_train_detection_data/scene0000_00_bbox.npy",
        "pointcept/train/scene0000_00/segment200.npy",
        "frames/scene0000_00/color/3.jpg",
        "crops/scene0000_00/crops.json",
        "scene0000_00.safetensors",
    ):
        assert (out_folder / name).is_file(), name
    index = json.loads((out_folder / "index.json").read_text())
    assert [scan["file"] for scan in index["scans"]] == ["scene0000_00.safetensors"]
    assert "0 prepared, 1 already there" in o2s(capsys, "prepare", *command)[1]


def test_failures_are_named_and_the_exit_code_is_1(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(raw, tmp_path / "raw")
    segments = copy / "scans" / "scene0001_00" / "scene0001_00_vh_clean_2.0.010000.segs.json"
    segments.unlink()
    code, out, err = o2s(capsys, "prepare", "scannet", copy, "--out", tmp_path / "out")
    assert code == 1
    assert err == f"o2s: {segments}: no such file; expected a scan file\n"
    assert "1 prepared, 0 already there, 1 failed" in out
    assert (tmp_path / "out" / "failed.json").exists()


@pytest.mark.parametrize(
    "options, expected",
    [
        (("--frames", "20"), "--frames is '20', expected every=N with N at least 1"),
        (("--frames", "every=0"), "--frames is 'every=0', expected every=N"),
        (("--crops", "2"), "--crops looks at every N-th frame: say --frames every=N as well"),
        (("--split", "test"), "no scannetv2_test.txt in it; --split wants it"),
        (("--labels", "none.tsv"), "none.tsv: no such file"),
        (("--workers", "0"), "--workers is 0, expected at least 1"),
        (("--subsample-seed", "0"), "say --also votenet or --also scanrefer as well"),
    ],
)
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str],
    raw: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    expected: str,
) -> None:
    code, out, err = o2s(capsys, "prepare", "scannet", raw, "--out", tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_output_has_to_be_a_folder(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    code, _, err = o2s(capsys, "prepare", "scannet", raw, "--out", tmp_path / "file")
    assert code == 2
    assert err == f"o2s: {tmp_path / 'file'}: is a file; expected a folder, or a new name for one\n"
    assert (tmp_path / "file").read_text() == "mine"


def test_prepared_scans_are_scans_to_the_other_commands(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    o2s(capsys, "prepare", "scannet", raw, "--out", tmp_path / "out")
    scan = tmp_path / "out" / "scene0000_00.safetensors"
    code, out, _ = o2s(capsys, "detect", scan, "--json")
    assert code == 0
    assert json.loads(out)["scan"] == str(scan)
    before = scan.read_bytes()
    code, _, err = o2s(capsys, "encode", scan, "--out", tmp_path / "out")
    assert code == 2
    assert "is no encoded scan and would be overwritten" in err
    assert scan.read_bytes() == before


def test_pointcept_needs_the_split_files(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(raw, tmp_path / "raw")
    (copy / "scannetv2_val.txt").unlink()
    code, _, err = o2s(
        capsys, "prepare", "scannet", copy, "--out", tmp_path / "out", "--also", "pointcept"
    )
    assert code == 2
    assert "no scannetv2_val.txt in it, by which Pointcept sorts scans" in err


def test_folders_of_other_data_sets_are_not_mixed(
    capsys: pytest.CaptureFixture[str], raw: Path, tmp_path: Path
) -> None:
    o2s(capsys, "prepare", "scannet", raw, "--out", tmp_path / "out")
    (tmp_path / "scans").mkdir()
    shutil.copy(raw / "scans" / "scene0000_00" / "scene0000_00_vh_clean_2.ply", tmp_path / "scans")
    code, out, _ = o2s(
        capsys, "prepare", "ply", tmp_path / "scans", "--out", tmp_path / "mine", "--up", "z"
    )
    assert code == 0
    assert "1 prepared" in out
    code, _, err = o2s(capsys, "prepare", "ply", tmp_path / "scans", "--out", tmp_path / "out")
    assert code == 2
    assert "holds scans of scannet; choose another --out for ply" in err
