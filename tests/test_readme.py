"""The README's Python and its commands run as printed, on the bundled scan and made-up data."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from benchmark_fake import write_benchmark
from rooms_library import write_rooms_library
from scannet_fake import write_download

from o2s.io import bundled_scan

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
SHELL = re.findall(r"```(?:sh|console)\n(.*?)```", README, flags=re.DOTALL)
SCRIPTS = [
    [line.removeprefix("$ ") for line in block.splitlines() if "o2s " in line[:6]]
    for block in SHELL
]
SCRIPTS = [commands for commands in SCRIPTS if commands]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(bundled_scan(), tmp_path / "scan.ply")
    splits = {"train": ["scene0000_00"], "val": ["scene0001_00"], "test": ["scene0700_00"]}
    write_download(tmp_path / "ScanNet", splits)
    write_rooms_library(tmp_path / "furniture")
    (tmp_path / "questions.txt").write_text("What color is the sofa?\nHow many chairs are there?\n")
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_python_runs(block: str, folder: Path) -> None:
    run([sys.executable, "-c", block], folder)


@pytest.mark.slow
@pytest.mark.parametrize("commands", SCRIPTS, ids=lambda commands: commands[0])
def test_commands_run(commands: list[str], folder: Path) -> None:
    if any("o2s eval" in command for command in commands):
        write_benchmark(folder / "ScanNet", folder)
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "o2s"
        assert run([sys.executable, "-m", "o2s.cli", *arguments], folder)


def test_the_readme_has_commands_and_python() -> None:
    assert sum(map(len, SCRIPTS)) >= 10
    assert len(BLOCKS) == 3
