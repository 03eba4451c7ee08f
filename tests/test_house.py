"""How the house is built: who imports whom, the links at the top, what a wheel contains."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "o2s"

FOUNDATION = {"errors", "files", "scene", "words"}
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "scene": set(),
    "words": set(),
    "config": {"errors"},
    "weights": {"errors"},
    "ops": {"scene"},
    "io": FOUNDATION | {"ops"},
    "detect": FOUNDATION | {"ops"},
    "regions": FOUNDATION | {"ops"},
    "point_bert": FOUNDATION | {"ops"},
    "alignment": FOUNDATION | {"ops", "point_bert"},
    "region_weights": FOUNDATION | {"weights", "own_weights", "point_bert"},
    "towers": FOUNDATION | {"weights", "ops"},
    "own_weights": FOUNDATION | {"weights"},
    "detector_weights": FOUNDATION | {"weights", "own_weights", "detect"},
    "aggregator": FOUNDATION | {"ops"},
    "encoder": FOUNDATION
    | {"ops", "detect", "detector_weights", "regions", "region_weights"}
    | {"point_bert", "aggregator"},
    "encoded": FOUNDATION | {"encoder"},
    "llm": FOUNDATION | {"config", "weights", "own_weights", "encoder", "ops"},
    "datasets": FOUNDATION | {"io", "ops"},
    "view": FOUNDATION | {"ops"},
}
ANYTHING = {
    "__main__",
    "cli",
    "cli_prepare",
    "cli_rooms",
    "cli_furniture",
    "cli_routes",
    "cli_demo",
    "cli_steps",
    "cli_instruct",
    "cli_eval",
    "cli_eval_captions",
    "cli_eval_detection",
    "cli_eval_images",
    "cli_eval_naming",
    "cli_eval_probe",
    "cli_eval_qa",
    "cli_eval_shared",
    "cli_eval_zero_shot",
    "cli_find",
    "cli_train",
    "loading",
    "options",
    "terminal",
    "terminal_report",
    "train",
    "evaluate",
    "__init__",
}
LINKS = ("llm", "datasets", "configs")


def imports_of(file: Path) -> set[str]:
    """The parts of o2s that a file imports, by the first name below `o2s`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "o2s":
            names = {alias.name for alias in node.names}
            found |= {n for n in names if (PACKAGE / n).exists() or (PACKAGE / f"{n}.py").exists()}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("o2s."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names = {a.name for a in node.names if a.name.startswith("o2s.")}
            found |= {name.split(".")[1] for name in names}
    return found


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_parts_import_only_what_they_may() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        part = part_of(file)
        if part in ANYTHING:
            continue
        surplus = imports_of(file) - MAY_IMPORT[part] - {part}
        wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in sorted(surplus)]
    assert not wrong


def test_nobody_imports_the_commands() -> None:
    for file in PACKAGE.rglob("*.py"):
        if part_of(file) not in ANYTHING:
            assert not imports_of(file) & ANYTHING, file


def test_stages_do_not_import_each_other() -> None:
    stages = {"detect", "regions", "point_bert", "aggregator"}
    for file in PACKAGE.rglob("*.py"):
        if part_of(file) in stages:
            assert not imports_of(file) & (stages - {part_of(file)}), file


@pytest.mark.parametrize("name", LINKS)
def test_links_at_the_top_are_relative_and_shadow_nothing(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert os.readlink(link) == f"o2s/{name}"
    assert not (link / "__init__.py").exists()
    assert (link / "README.md").is_file()


@pytest.mark.parametrize("start", [["-c"], ["-m"]])
def test_hugging_face_datasets_wins_at_the_root(start: list[str], tmp_path: Path) -> None:
    code = "import datasets; print(datasets.__file__); datasets.Dataset"
    if start == ["-m"]:
        (tmp_path / "probe.py").write_text(code)
        code = "probe"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *start, code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not Path(done.stdout.strip()).is_relative_to(ROOT / "o2s")


def test_files_stay_readable() -> None:
    long = {
        str(file.relative_to(ROOT)): lines
        for folder in ("o2s", "tests", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
        if (lines := len(file.read_text().splitlines())) > 420
    }
    assert not long


def test_core_needs_neither_torchvision_nor_timm() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {n.split(".")[0] for n in names} & {"torchvision", "timm"}, file


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from what git tracks, in a clone of its own."""
    folder = tmp_path_factory.mktemp("clone")
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.split(b"\0")
    for name in filter(None, map(os.fsdecode, files)):
        source, target = ROOT / name, folder / "o2s-clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            target.symlink_to(os.readlink(source))
        elif source.is_file():
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run(
        command, cwd=folder / "o2s-clone", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.slow
def test_wheel_holds_everything_and_nothing_else(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "o2s"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = {name for name in tracked if (ROOT / name).is_file()}
    contents = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    assert contents == expected


@pytest.mark.slow
def test_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import o2s, datasets; from o2s import config; from o2s.io import bundled_scan, read_scene;"
        "from o2s.llm.configuration import SceneLMRecipe;"
        f"assert o2s.__file__.startswith({str(installed)!r}), o2s.__file__;"
        "assert datasets.Dataset;"
        "[config.load(name, SceneLMRecipe) for name in ('tiny', 'ulip1', 'ulip2')];"
        "assert len(read_scene(bundled_scan())) > 100_000"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
