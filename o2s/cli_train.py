"""The commands `o2s train`: what is trained, each from a recipe in a YAML file."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from o2s.errors import InputError
from o2s.options import SetOption, ThreadsOption, TrustOption
from o2s.terminal import out, progress_bar, step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from o2s.train.region_run import RegionReport
    from o2s.train.run_folder import Step

RecipeOption = Annotated[str, typer.Option(help="A recipe's name or a YAML file.")]
RunFolderOption = Annotated[Path, typer.Option("--out", help="A folder for everything it writes.")]

app = typer.Typer(
    help="Train a part of the model from a recipe.", no_args_is_help=True, rich_markup_mode=None
)


@app.command(
    epilog="Example: o2s train regions --config regions_tiny --set data.scenes=prepared --out run"
)
def regions(
    config: RecipeOption,
    out_folder: RunFolderOption,
    overrides: SetOption = None,
    trust_pickle: TrustOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Pretrain the region encoder: points against texts and images, as ULIP does.

    Writes region_encoder.safetensors, classes.safetensors (embedded names, for `o2s eval
    zero-shot --text`), scores.json and, in checkpoints/, what is needed to go on: a run that was
    interrupted goes on where it was when the command is run again. With several processors,
    `torchrun --nproc-per-node 2 -m o2s train regions ...` shares the work.
    """
    from o2s import config as configs
    from o2s.train.region_recipe import RegionRecipe
    from o2s.train.region_run import train_regions

    recipe = configs.load(config, RegionRecipe, overrides or [])
    with _running(threads) as steps:
        report = train_regions(recipe, out_folder, steps, trust_pickle=trust_pickle)
    _print(report, out_folder)


@app.command(
    epilog="Example: o2s train detector --config tr3d_tiny --set data.scenes=prepared --out run"
)
def detector(
    config: RecipeOption,
    out_folder: RunFolderOption,
    overrides: SetOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Train a detector on annotated scans that `o2s prepare` wrote.

    Writes detector.safetensors, scores.json and, in checkpoints/, what is needed to go on: a run
    that was interrupted goes on where it was when the command is run again. With several
    processors, `torchrun --nproc-per-node 2 -m o2s train detector ...` shares the work.
    """
    from o2s import config as configs
    from o2s.train.detector_recipe import DetectorRecipe
    from o2s.train.detector_run import train_detector

    recipe = configs.load(config, DetectorRecipe, overrides or [])
    with _running(threads) as steps:
        scores = train_detector(recipe, out_folder, steps)
    _print_scores("val", scores)
    line = f"detector.safetensors is in {out_folder}"
    out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(
    "scene-lm",
    epilog="Example: o2s train scene-lm --config scene_lm_tiny --out run",
)
def scene_lm(
    config: RecipeOption,
    out_folder: RunFolderOption,
    overrides: SetOption = None,
    threads: ThreadsOption = None,
) -> None:
    """Tune the model on instructions: records of `o2s instruct` about scans of `o2s encode`.

    The language model, the detector and the region encoder stay as they are. Writes
    scene_lm.safetensors (what was trained), model/ (for --model), scores.json and, in checkpoints/,
    what is needed to go on: a run that was interrupted goes on where it was when the command is run
    again. With several processors, `torchrun --nproc-per-node 2 -m o2s train scene-lm ...` shares
    the work.
    """
    from o2s import config as configs
    from o2s.train.scene_lm_recipe import InstructionRecipe
    from o2s.train.scene_lm_run import train_scene_lm

    recipe = configs.load(config, InstructionRecipe, overrides or [])
    with _running(threads) as steps:
        scores = train_scene_lm(recipe, out_folder, steps)
    _print_scores("val", scores)
    line = f"scene_lm.safetensors and model are in {out_folder}"
    out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command(
    "image-projection",
    epilog="Example: o2s train image-projection --config regions_tiny --set data.scenes=prepared "
    "--out image_projection.safetensors",
)
def image_projection(
    config: Annotated[str, typer.Option(help="A recipe of `o2s train regions`: its data is used.")],
    out_file: Annotated[Path, typer.Option("--out", help="A .safetensors file to write.")],
    overrides: SetOption = None,
    trust_pickle: TrustOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Fit the projection of the small image tower: images to the texts' space.

    Prints how often the name of an object's class is the nearest to an image of it, on val.
    """
    from o2s import config as configs
    from o2s.train.image_projection import fit_image_projection
    from o2s.train.region_recipe import RegionRecipe

    if out_file.is_dir():
        raise InputError(f"--out {out_file}: is a folder; expected the name of a file")
    recipe = configs.load(config, RegionRecipe, overrides or [])
    with _running(threads) as steps:
        scores = fit_image_projection(recipe, out_file, steps, trust_pickle=trust_pickle)
    images = int(scores.pop("images"))
    _print_scores(f"{images} images of val", scores)


@contextmanager
def _running(threads: int | None) -> "Iterator[Step]":
    """What surrounds a training: its threads, its lines of progress, an end of all processes."""
    from o2s.loading import keep_freed_memory, set_threads
    from o2s.train.run_folder import leave_together

    set_threads(threads)
    keep_freed_memory()
    with progress_bar() as progress:
        yield lambda what: step(progress, what)
    leave_together()


def _print(report: "RegionReport", folder: Path) -> None:
    for name, scores in report.scores.items():
        _print_scores(name, scores)
    line = f"region_encoder.safetensors is in {folder}"
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _print_scores(name: str, scores: "Mapping[str, float]") -> None:
    figures = ", ".join(
        f"{key} {value:.3f}" if key.startswith("loss") else f"{key} {100 * value:.1f}"
        for key, value in scores.items()
    )
    out.print(f"{name}: {figures}", markup=False, highlight=False, soft_wrap=True)
