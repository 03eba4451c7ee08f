"""Preparing many scans: the same bytes whatever happens, broken scans named, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scannet_fake import LABELS, write_download, write_table

from o2s.datasets.exports import Export
from o2s.datasets.preparation import Extra, prepare, read_index
from o2s.datasets.scannet import ScanNet
from o2s.errors import InputError
from o2s.io import read_scene
from o2s.io.labelled import labelled_facts, read_labelled

TRAIN = [f"scene000{i}_00" for i in range(5)]
SPLITS = {"train": TRAIN, "val": ["scene0010_00"], "test": ["scene0700_00"]}
EXTRAS: tuple[Extra, ...] = (Export("votenet"), Export("pointcept"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_download(tmp_path_factory.mktemp("raw scans") / "Scan Net", SPLITS, detail=2)


@pytest.fixture
def raw(original: Path, tmp_path: Path) -> Path:
    return shutil.copytree(original, tmp_path / "Scan Net")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}


def test_every_scan_is_prepared_and_indexed(original: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = prepare(ScanNet(original), tmp_path / "out", progress=lambda *n: seen.append(n))
    assert (report.done, report.kept, report.failed, report.notes) == (7, 0, {}, {})
    assert seen == [(i, 7) for i in range(1, 8)]
    index = read_index(tmp_path / "out")
    assert [scan["name"] for scan in index["scans"]] == sorted(
        [n for s in SPLITS.values() for n in s]
    )
    assert index["dataset"] == "scannet"
    assert len(index["class_names"]["nyu40"]) == 41
    for entry in index["scans"]:
        scan = read_labelled(tmp_path / "out" / entry["file"])
        assert (scan.name, scan.split) == (entry["name"], entry["split"])
        assert len(scan) == entry["vertices"]
        assert entry["objects"] == (None if scan.objects is None else len(scan.objects))
        assert (scan.split == "test") == (scan.objects is None)
        assert len(read_scene(tmp_path / "out" / entry["file"])) == len(scan)


def test_workers_and_repetition_do_not_change_a_byte(original: Path, tmp_path: Path) -> None:
    for name, workers in (("one", 1), ("again", 1), ("two", 2), ("many", 9)):
        prepare(ScanNet(original), tmp_path / name, workers=workers, extras=EXTRAS)
    one = contents(tmp_path / "one")
    assert len(one) > 7 * 3
    for name in ("again", "two", "many"):
        assert contents(tmp_path / name) == one


def test_a_second_run_does_only_what_is_missing_or_changed(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(ScanNet(raw), out)
    before, first = times(out), contents(out)
    report = prepare(ScanNet(raw), out)
    assert (report.done, report.kept) == (0, 7)
    assert times(out) == before
    (out / f"{TRAIN[0]}.safetensors").unlink()
    cut = out / f"{TRAIN[1]}.safetensors"
    cut.write_bytes(first[cut.name])
    facts = raw / "scans" / TRAIN[2] / f"{TRAIN[2]}.txt"
    facts.write_text("axisAlignment = " + " ".join(map(str, np.eye(4).ravel())))
    report = prepare(ScanNet(raw), out)
    assert (report.done, report.kept) == (2, 5)
    after = contents(out)
    changed = {name for name in first if after[name] != first[name]}
    assert changed == {f"{TRAIN[2]}.safetensors"}


def test_a_changed_label_table_or_split_counts(raw: Path, tmp_path: Path) -> None:
    prepare(ScanNet(raw), tmp_path / "out")
    write_table(
        raw / "scannetv2-labels.combined.tsv", (*LABELS[:-1], (*LABELS[-1][:4], 39, "", ""))
    )
    assert prepare(ScanNet(raw), tmp_path / "out").done == 7
    (raw / "scannetv2_val.txt").write_text(f"{TRAIN[0]}\nscene0010_00\n")
    (raw / "scannetv2_train.txt").write_text("\n".join(TRAIN[1:]))
    assert prepare(ScanNet(raw), tmp_path / "out").done == 1
    facts = labelled_facts(tmp_path / "out" / f"{TRAIN[0]}.safetensors")
    assert facts is not None
    assert facts["split"] == "val"


def test_scans_of_two_label_tables_are_not_mixed(raw: Path, tmp_path: Path) -> None:
    prepare(ScanNet(raw), tmp_path / "out")
    before = (tmp_path / "out" / "index.json").read_bytes()
    more = (9, "sofa bed", "sofa bed", 85, 6, "sofa", "sofa")
    write_table(raw / "scannetv2-labels.combined.tsv", (*LABELS, more))
    with pytest.raises(InputError, match="made with another label table"):
        prepare(ScanNet(raw, "val"), tmp_path / "out")
    assert (tmp_path / "out" / "index.json").read_bytes() == before
    assert prepare(ScanNet(raw), tmp_path / "out").failed == {}


def test_extras_are_added_later_and_kept(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(ScanNet(original), out)
    before = times(out)
    report = prepare(ScanNet(original), out, extras=EXTRAS)
    assert report.done == 7
    assert times(out) == before, "the prepared files themselves were current"
    assert prepare(ScanNet(original), out, extras=EXTRAS).kept == 7
    (out / "pointcept" / "val" / "scene0010_00" / "normal.npy").unlink()
    assert prepare(ScanNet(original), out, extras=EXTRAS).done == 1
    prepare(ScanNet(original), tmp_path / "fresh", extras=EXTRAS)
    assert contents(out) == contents(tmp_path / "fresh")


def test_extras_older_than_their_scan_are_written_again(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(ScanNet(raw), out, extras=EXTRAS)
    facts = raw / "scans" / TRAIN[2] / f"{TRAIN[2]}.txt"
    facts.write_text("axisAlignment = " + " ".join(map(str, np.eye(4).ravel())))
    prepare(ScanNet(raw), out)
    assert prepare(ScanNet(raw), out, extras=EXTRAS).done == 1
    prepare(ScanNet(raw), tmp_path / "fresh", extras=EXTRAS)
    assert contents(out) == contents(tmp_path / "fresh")


def test_extras_with_other_settings_are_not_mixed(original: Path, tmp_path: Path) -> None:
    prepare(ScanNet(original), tmp_path, extras=[Export("votenet", 1)])
    with pytest.raises(InputError, match=r'votenet: was written with {"subsample_seed": 1}, not'):
        prepare(ScanNet(original), tmp_path, extras=[Export("votenet", 2)])


@pytest.mark.parametrize("workers", [1, 2])
def test_broken_scans_are_named_and_the_others_finished(
    raw: Path, tmp_path: Path, workers: int
) -> None:
    out = tmp_path / "out"
    mesh = raw / "scans" / TRAIN[1] / f"{TRAIN[1]}_vh_clean_2.ply"
    whole = mesh.read_bytes()
    mesh.write_bytes(whole[:500])
    groups = raw / "scans" / TRAIN[3] / f"{TRAIN[3]}.aggregation.json"
    groups.write_text(groups.read_text().replace('"label": "floor"', '"label": "unheard of"'))
    with (raw / "scannetv2_train.txt").open("a") as file:
        file.write("scene0555_00\n")
    report = prepare(ScanNet(raw, "train"), out, workers=workers)
    assert report.done == 3
    assert set(report.failed) == {TRAIN[1], TRAIN[3], "scene0555_00"}
    assert report.failed[TRAIN[1]].startswith(f"{mesh}: ")
    assert report.failed[TRAIN[3]].startswith(f"{groups}: group 0 has the label 'unheard of'")
    assert not any("\n" in line for line in report.failed.values())
    failed = json.loads((out / "failed.json").read_text())
    assert failed == [{"scan": n, "reason": report.failed[n]} for n in sorted(report.failed)]
    assert [s["name"] for s in read_index(out)["scans"]] == [TRAIN[0], TRAIN[2], TRAIN[4]]
    mesh.write_bytes(whole)
    groups.write_text(groups.read_text().replace("unheard of", "floor"))
    (raw / "scannetv2_train.txt").write_text("\n".join(TRAIN))
    report = prepare(ScanNet(raw, "train"), out, workers=workers)
    assert (report.done, report.kept, report.failed) == (2, 3, {})
    assert [f["scan"] for f in json.loads((out / "failed.json").read_text())] == ["scene0555_00"]
    assert not prepare(ScanNet(raw), out, workers=workers).failed
    assert not (out / "failed.json").exists(), "all scans that there are were asked for"


def test_failures_and_stale_scans_of_other_splits_are_remembered(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(ScanNet(raw), out)
    mesh = raw / "scans" / TRAIN[1] / f"{TRAIN[1]}_vh_clean_2.ply"
    mesh.write_bytes(mesh.read_bytes()[:500])
    prepare(ScanNet(raw, "train"), out)
    for split in ("val", "test"):
        assert prepare(ScanNet(raw, split), out).kept == 1
        assert [f["scan"] for f in json.loads((out / "failed.json").read_text())] == [TRAIN[1]]
        assert TRAIN[1] not in [s["name"] for s in read_index(out)["scans"]]


def test_a_scan_that_changes_its_split_is_in_one_split_only(raw: Path, tmp_path: Path) -> None:
    extras = [Export("pointcept"), Export("mmdet3d")]
    prepare(ScanNet(raw), tmp_path / "out", extras=extras)
    (raw / "scannetv2_val.txt").write_text(f"{TRAIN[0]}\nscene0010_00\n")
    (raw / "scannetv2_train.txt").write_text("\n".join(TRAIN[1:]))
    prepare(ScanNet(raw), tmp_path / "out", extras=extras)
    prepare(ScanNet(raw), tmp_path / "fresh", extras=extras)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1, "scans": []}', '{"version": 0}'])
def test_a_damaged_index_is_made_again(original: Path, tmp_path: Path, text: str) -> None:
    prepare(ScanNet(original), tmp_path)
    whole = contents(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(InputError, match="not an index of version 1; run `o2s prepare` again"):
        read_index(tmp_path)
    (tmp_path / "failed.json").write_text("{")
    assert prepare(ScanNet(original), tmp_path).kept == 7
    assert contents(tmp_path) == whole


def test_damaged_settings_of_an_extra_are_one_line(original: Path, tmp_path: Path) -> None:
    prepare(ScanNet(original), tmp_path, extras=[Export("votenet")])
    (tmp_path / "votenet" / "settings.json").write_text("{")
    with pytest.raises(InputError, match="was written with null, not"):
        prepare(ScanNet(original), tmp_path, extras=[Export("votenet")])


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_cannot_be_written_fail_their_scan_alone(raw: Path, tmp_path: Path) -> None:
    for odd in (b"scan\xff", b"two\nlines"):
        folder = os.fsencode(raw / "scans") + b"/" + odd
        os.mkdir(folder)
        with open(folder + b"/" + odd + b"_vh_clean_2.ply", "wb"):
            pass
    report = prepare(ScanNet(raw), tmp_path / "out")
    assert report.done == 7
    assert len(report.failed) == 2
    assert all("rename the scan" in line and line.isascii() for line in report.failed.values())
    assert not any("\n" in line for line in report.failed.values())
    assert len(json.loads((tmp_path / "out" / "failed.json").read_text())) == 2


@pytest.mark.parametrize("alignment", ["1e30 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1", "0 " * 16])
def test_an_alignment_that_ruins_coordinates_fails(
    raw: Path, tmp_path: Path, alignment: str
) -> None:
    facts = raw / "scans" / TRAIN[2] / f"{TRAIN[2]}.txt"
    facts.write_text(f"axisAlignment = {alignment}\n")
    report = prepare(ScanNet(raw), tmp_path / "out", extras=[Export("votenet")])
    assert set(report.failed) == {TRAIN[2]}
    assert report.failed[TRAIN[2]].startswith(f"{facts}: axisAlignment")


def test_splits_add_up_in_one_index(original: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        prepare(ScanNet(original, split), tmp_path / "out")
    prepare(ScanNet(original), tmp_path / "at once")
    assert contents(tmp_path / "out") == contents(tmp_path / "at once")


def test_input_is_only_read(raw: Path, tmp_path: Path) -> None:
    before = contents(raw)
    for path in (raw, *raw.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    prepare(ScanNet(raw), tmp_path / "out", workers=2)
    assert contents(raw) == before


def test_files_of_others_are_not_overwritten(original: Path, tmp_path: Path) -> None:
    weights = tmp_path / f"{TRAIN[0]}.safetensors"
    save_file({"weight": np.ones(3)}, weights)
    before = weights.read_bytes()
    report = prepare(ScanNet(original), tmp_path)
    assert report.failed == {
        TRAIN[0]: f"{weights}: is no prepared scan and would be overwritten; move it"
    }
    assert weights.read_bytes() == before


def start(raw: Path, out: Path, *options: str, limit: int | None = None) -> subprocess.Popen[str]:
    """The command in a process of its own; `limit` is the size that no file may pass."""
    code = "from o2s.cli import main; main()"
    if limit is not None:
        code = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, {limit})); {code}"
    return subprocess.Popen(
        [sys.executable, "-c", code, "prepare", "scannet", str(raw), "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, running: subprocess.Popen[str]) -> None:
    while running.poll() is None and not path.exists():
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_run_is_finished_by_the_next(tmp_path: Path, workers: str) -> None:
    names = [f"scene{i:04d}_00" for i in range(24)]
    raw = write_download(tmp_path / "raw", {"train": names, "val": ["scene0100_00"]}, detail=14)
    options = ("--workers", workers, "--also", "mmdet3d", "--also", "scanrefer")
    out = tmp_path / "out"
    running = start(raw, out, *options)
    wait_for(out / f"{names[3]}.safetensors", running)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=10)  # its workers hold the pipes too, and end with it
    assert not (out / "index.json").exists(), "killed too late to say anything"
    (out / ".0123456789abcdef.tmp.safetensors").write_bytes(b"what a killed process left")
    done = start(raw, out, *options)
    printed, errors = done.communicate()
    assert done.returncode == 0, errors
    assert "0 failed" in printed
    assert "0 already there" not in printed
    undisturbed = start(raw, tmp_path / "undisturbed", *options)
    undisturbed.communicate()
    assert contents(out) == contents(tmp_path / "undisturbed")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="needs limits on the size of files")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_line(original: Path, tmp_path: Path, workers: str) -> None:
    done = start(original, tmp_path / "out", "--workers", workers, limit=20_000)
    _, errors = done.communicate()
    assert done.returncode == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"o2s: {tmp_path / 'out'}/scene")
    assert line.endswith(".safetensors: File too large")
    for left in (tmp_path / "out").iterdir():  # another worker may have finished a smaller scan
        assert read_labelled(left).name == left.stem


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    names = [f"scene{i:04d}_00" for i in range(24)]
    raw = write_download(tmp_path / "raw", {"train": names}, detail=14)
    out = tmp_path / "out"
    first = start(raw, out, "--workers", "1")
    wait_for(out / f"{names[0]}.safetensors", first)
    with pytest.raises(InputError, match="another command is writing there"):
        prepare(ScanNet(raw), out)
    first.communicate()
    assert first.returncode == 0
    assert prepare(ScanNet(raw), out).kept == 24
