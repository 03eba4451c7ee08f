"""Preparing raw ScanNet scans: ours against the public scripts, and whether the arrays are equal.

    python benchmarks/prepare.py --python PEERS_PYTHON --votenet CLONE --scanrefer CLONE \\
        --mmdet3d CLONE --pointcept CLONE

Made-up scans of about 160,000 vertices, 300,000 faces and 60 instances are written in ScanNet's raw
layout; all read the same files, one thread each, in turns. A peer takes part if its clone is named;
its script runs as it is, without its unseeded subsampling, in an interpreter that has numpy,
plyfile and pandas. Every file that it writes is compared with ours, byte for byte. Times are
medians of seconds a scan; `ratio` is the time over ours. The floor is reading the files once.
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

from o2s.datasets.exports import Export, Project
from o2s.datasets.preparation import Extra, prepare
from o2s.datasets.scannet import ScanNet

ROUNDS, SCANS = 5, 4
MANY, SKIPPED = 64, 8  # scans for the workers, and those at which they are still starting

# What the peers' interpreter runs: a script's folder, how to load it, how to prepare one scan, and
# where the same files lie below our output.
PEERS: dict[Project, tuple[str, str, str, str]] = {
    "votenet": (
        "scannet",
        "import batch_load_scannet_data as m; m.SCANNET_DIR = raw + '/scans'; "
        "m.LABEL_MAP_FILE = table; m.MAX_NUM_POINT = 10**9",
        "m.export_one_scan(name, f'{out}/{name}')",
        "votenet/scannet_train_detection_data",
    ),
    "scanrefer": (
        "data/scannet",
        "import batch_load_scannet_data as m; m.SCANNET_DIR = raw + '/scans'; "
        "m.LABEL_MAP_FILE = table; m.MAX_NUM_POINT = 10**9; m.OUTPUT_FOLDER = out",
        "m.export_one_scan(name)",
        "scanrefer/scannet_data",
    ),
    "mmdet3d": (
        "data/scannet",
        "import batch_load_scannet_data as m",
        "m.export_one_scan(name, f'{out}/{name}', None, table, raw + '/scans')",
        "mmdet3d/scannet_instance_data",
    ),
    "pointcept": (
        "pointcept/datasets/preprocessing/scannet",
        "import pandas, preprocess_scannet as m; "
        "labels = pandas.read_csv(table, sep='\\t', header=0)",
        "m.handle_process(f'{raw}/scans/{name}', out, labels, names, [])",
        "pointcept",
    ),
}
RUN = """
import json, os, sys, time
import numpy as np
np.in1d = np.isin  # gone from NumPy 2.4
raw, out, folder, names = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split(",")
table = raw + "/scannetv2-labels.combined.tsv"
sys.path.insert(0, folder)
os.chdir(folder)
{load}
times = []
for name in names[:1] + names:
    begun = time.perf_counter()
    {call}
    times.append(time.perf_counter() - begun)
print(json.dumps(times[1:]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Preparing raw ScanNet scans, timed and compared")
    for name in PEERS:
        parser.add_argument(f"--{name}", type=Path, help=f"a clone of {name}'s repository")
    parser.add_argument("--python", default=sys.executable, help="the peers' interpreter")
    options = vars(parser.parse_args())
    clones: dict[Project, Path] = {
        name: options[name].resolve() for name in PEERS if options[name] is not None
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw, theirs, ours = folder / "raw", folder / "theirs", folder / "ours"
        names = write_scans(raw, SCANS)
        print_workers(raw, ours, names)
        if "pointcept" in clones:  # its own list of 200 classes, so that ours is the same
            meta_data = clones["pointcept"] / PEERS["pointcept"][0] / "meta_data"
            shutil.copy(meta_data / "scannet200_constants.py", raw)
        extras: dict[str, list[Extra]] = {"ours": []}
        extras |= {f"ours --also {name}": [Export(name)] for name in clones}
        times: dict[str, list[float]] = {}
        equal: dict[Project, str] = {}
        for _ in range(ROUNDS):
            times.setdefault("floor: read the bytes once", []).extend(read_times(raw, names))
            for name, wanted in extras.items():
                times.setdefault(name, []).extend(our_times(raw, ours, wanted))
            for name, clone in clones.items():
                place, load, call, _ = PEERS[name]
                code = RUN.format(load=load, call=call)
                arguments = [raw, theirs, clone / place, ",".join(names)]
                command = [options["python"], "-c", code, *arguments]
                theirs.mkdir()
                times.setdefault(name, []).extend(peer_times(command))
                if name not in equal:
                    equal[name] = compare(theirs, raw, ours, name)
                shutil.rmtree(theirs)
        print_times(times, equal)


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


def peer_times(command: list[object]) -> list[float]:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def compare(theirs: Path, raw: Path, ours: Path, name: Project) -> str:
    """How many of the peer's files are ours to the last byte; fails if one is not."""
    prepare(ScanNet(raw, "train"), ours, extras=[Export(name)])
    files = [path for path in sorted(theirs.rglob("*")) if path.is_file()]
    for path in files:
        other = ours / PEERS[name][3] / path.relative_to(theirs)
        if not other.is_file() or other.read_bytes() != path.read_bytes():
            sys.exit(f"{name}: {path.relative_to(theirs)} is not equal to ours")
    shutil.rmtree(ours)
    return f"all {len(files)} files"


def print_times(times: dict[str, list[float]], equal: dict[Project, str]) -> None:
    columns = (
        "what",
        "seconds a scan",
        "of the floor",
        "ratio to ours",
        "to ours --also it",
        "equal",
    )
    table = Table(*columns)
    medians = {name: statistics.median(values) for name, values in times.items()}
    floor, ours = medians["floor: read the bytes once"], medians["ours"]
    held: dict[str, str] = {str(name): found for name, found in equal.items()}
    for name, value in medians.items():
        same = f"{value / medians[f'ours --also {name}']:.1f}" if name in held else ""
        ratios = (f"{value / floor:.0f}", f"{value / ours:.1f}", same)
        table.add_row(name, f"{value:.4f}", *ratios, held.get(name, ""))
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
