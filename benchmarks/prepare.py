"""Preparing raw ScanNet scans, ours against Pointcept's and mmdet3d's scripts.

    python benchmarks/prepare.py --pointcept CLONE --mmdet3d CLONE --python PEERS_PYTHON

Made-up scans of about 160,000 vertices, 300,000 faces and 60 instances are written in ScanNet's raw
layout; all read the same files, one thread each, in turns. A peer takes part if its clone is named;
its script runs as it is, in an interpreter that has numpy, plyfile and pandas. Times are medians of
seconds a scan; `ratio` is the peer's over ours. The floor is reading the bytes of the files once.
Before that: two workers against one, and the memory of the largest process.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy is loaded, here and in what is started
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from rich.console import Console
from rich.table import Table
from scannet_fake import make_scan, write_raw_scan, write_table

from o2s.datasets.exports import Export
from o2s.datasets.preparation import Extra, prepare
from o2s.datasets.scannet import ScanNet

ROUNDS, SCANS = 5, 4
MANY, SKIPPED = 64, 8  # scans for the workers, and those at which they are still starting

MMDET3D = """
import json, sys, time
import numpy as np
np.in1d = np.isin  # gone from NumPy 2.4
raw, out, names, clone = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4]
sys.path.insert(0, clone + "/data/scannet")
from batch_load_scannet_data import export_one_scan
times = []
for name in names[:1] + names:
    begun = time.perf_counter()
    export_one_scan(name, f"{out}/{name}", None, raw + "/scannetv2-labels.combined.tsv",
                    raw + "/scans")
    times.append(time.perf_counter() - begun)
print(json.dumps(times[1:]))
"""

POINTCEPT = """
import json, sys, time
import pandas
raw, out, names, clone = sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4]
sys.path.insert(0, clone + "/pointcept/datasets/preprocessing/scannet")
from preprocess_scannet import handle_process
labels = pandas.read_csv(raw + "/scannetv2-labels.combined.tsv", sep="\\t", header=0)
times = []
for name in names[:1] + names:
    begun = time.perf_counter()
    handle_process(f"{raw}/scans/{name}", out, labels, names, [])
    times.append(time.perf_counter() - begun)
print(json.dumps(times[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Preparing raw ScanNet scans, timed")
    parser.add_argument("--pointcept", type=Path, help="a clone of Pointcept/Pointcept")
    parser.add_argument("--mmdet3d", type=Path, help="a clone of open-mmlab/mmdetection3d")
    parser.add_argument("--python", default=sys.executable, help="the peers' interpreter")
    options = parser.parse_args()
    peers = {"Pointcept": (POINTCEPT, options.pointcept), "mmdet3d": (MMDET3D, options.mmdet3d)}
    ours: dict[str, list[Extra]] = {
        "ours": [],
        "ours --also pointcept": [Export("pointcept")],
        "ours --also mmdet3d": [Export("mmdet3d")],
    }
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        names = write_scans(raw, SCANS)
        print_workers(raw, Path(folder) / "many", names)
        times: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            times.setdefault("floor: read the bytes once", []).extend(read_times(raw, names))
            for name, extras in ours.items():
                times.setdefault(name, []).extend(our_times(raw, Path(folder) / "ours", extras))
            for name, (code, clone) in peers.items():
                if clone is not None:
                    out = Path(folder) / "theirs"
                    command = [options.python, "-c", code, raw, out, ",".join(names), clone]
                    times.setdefault(name, []).extend(peer_times(command, out))
        print_times(times)


def write_scans(raw: Path, count: int) -> list[str]:
    write_table(raw / "scannetv2-labels.combined.tsv")
    names = [f"scene{i:04d}_00" for i in range(count)]
    for seed, name in enumerate(names):
        write_raw_scan(make_scan(name, seed, objects=57, detail=22), raw / "scans")
    (raw / "scannetv2_train.txt").write_text("\n".join(names) + "\n")
    (raw / "scannetv2_val.txt").write_text("none\n")
    return names


def read_times(raw: Path, names: list[str]) -> list[float]:
    times = []
    for name in names:
        begun = time.perf_counter()
        for path in (raw / "scans" / name).iterdir():
            path.read_bytes()
        times.append(time.perf_counter() - begun)
    return times


def our_times(raw: Path, out: Path, extras: list[Extra]) -> list[float]:
    """Seconds of each scan, as `prepare` with one worker reports them done; the first warms up."""
    stamps: list[float] = []
    prepare(ScanNet(raw), out, extras=extras)
    shutil.rmtree(out)
    begun = time.perf_counter()
    prepare(
        ScanNet(raw), out, extras=extras, progress=lambda *_: stamps.append(time.perf_counter())
    )
    shutil.rmtree(out)
    return [stamp - before for before, stamp in zip([begun, *stamps], stamps, strict=False)]


def peer_times(command: list[object], out: Path) -> list[float]:
    out.mkdir()
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    shutil.rmtree(out)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def print_times(times: dict[str, list[float]]) -> None:
    table = Table("what", "seconds a scan", "of the floor", "ratio to ours")
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor, ours = medians["floor: read the bytes once"], medians["ours"]
    for name, value in medians.items():
        ratio = f"{value / ours:.1f}"
        if name in ("Pointcept", "mmdet3d"):
            same = value / medians[f"ours --also {name.lower()}"]
            ratio += f" ({same:.1f} where ours writes the same arrays as well)"
        table.add_row(name, f"{value:.4f}", f"{value / floor:.0f}", ratio)
    Console(width=120).print(table)


def print_workers(raw: Path, out: Path, names: list[str]) -> None:
    """Many scans, which are links to the same few files under other names, by one and by two.

    The rate is that of all scans but the first few, so that the workers' start does not count.
    """
    chosen = [f"scene{i:04d}_01" for i in range(MANY)]
    (raw / "many.txt").write_text("\n".join(chosen) + "\n")
    for i, name in enumerate(chosen):
        source, target = raw / "scans" / names[i % len(names)], raw / "scans" / name
        target.mkdir()
        for path in source.iterdir():
            os.link(path, target / path.name.replace(source.name, name))
    rates: dict[int, list[float]] = {1: [], 2: []}
    starts: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for workers in rates:
            stamps = [time.perf_counter()]
            prepare(
                ScanNet(raw, str(raw / "many.txt")),
                out,
                workers=workers,
                progress=lambda *_, stamps=stamps: stamps.append(time.perf_counter()),
            )
            shutil.rmtree(out)
            rates[workers].append((MANY - SKIPPED) / (stamps[-1] - stamps[SKIPPED]))
            starts[workers].append(stamps[1] - stamps[0])
    table = Table("workers", "scans a second", "seconds to the first scan")
    for workers in rates:
        rate, start = statistics.median(rates[workers]), statistics.median(starts[workers])
        table.add_row(str(workers), f"{rate:.1f}", f"{start:.1f}")
    ratio = statistics.median(two / one for one, two in zip(rates[1], rates[2], strict=True))
    console = Console(width=120)
    console.print(table)
    console.print(f"two workers do {ratio:.2f} times the scans of one (median of {ROUNDS} pairs)")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    console.print(f"largest process: {max(u.ru_maxrss for u in usage) / 1024:.0f} MB")


if __name__ == "__main__":
    main()
