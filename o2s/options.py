"""The options that commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from o2s.errors import InputError


class Up(StrEnum):
    """Which axis of the file points up."""

    auto = "auto"
    x = "x"
    y = "y"
    z = "z"
    minus_x = "-x"
    minus_y = "-y"
    minus_z = "-z"


class Unit(StrEnum):
    """The unit of length of the file."""

    auto = "auto"
    m = "m"
    cm = "cm"
    mm = "mm"
    ft = "ft"
    inch = "in"


class DetectorName(StrEnum):
    """The detectors there are."""

    tr3d = "tr3d"
    detr3d = "detr3d"
    clusters = "clusters"


class TextKind(StrEnum):
    """What --text-model is."""

    clip = "clip"
    open_clip = "open_clip"
    slip = "slip"


def check_picture(
    path: Path | None, option: str = "--picture", suffixes: tuple[str, ...] = (".png",)
) -> None:
    """Raise InputError, before any work, unless a picture can have this name."""
    if path is None:
        return
    expected = f"expected the name of a {' or '.join(suffixes)} file"
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; {expected}")
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{option} {path}: {expected}")


def check_text_options(path: str | None, kind: TextKind | None, tokenizer: str | None) -> None:
    """Raise InputError where --text-model, --text-kind and --text-tokenizer do not go together."""
    if kind is not None and path is None:
        raise InputError("--text-kind says what --text-model is: give that as well")
    if tokenizer is not None and kind is not TextKind.slip:
        raise InputError("--text-tokenizer goes with --text-kind slip; others bring their own")
    for option, value in (("--text-model", path), ("--text-tokenizer", tokenizer)):
        if value is not None and not value.strip():
            raise InputError(f"{option} is empty; expected a folder, a file or a hub name")


DEFAULT_CONFIG = "o2s_tiny"  # the model that comes with o2s
ENCODER_CONFIG = "tiny"  # detector and region encoder, for what needs no language model

ScanArgument = Annotated[
    Path,
    typer.Argument(
        help="A scan: .ply, .pcd, .npz, .npy, .xyz, .txt, .csv, .asc, .pts, .las, .laz, .e57, "
        ".safetensors, or a mesh: .glb, .gltf, .obj, .stl, .off."
    ),
]
UpOption = Annotated[Up, typer.Option(help="The axis that points up in the file.")]
UnitOption = Annotated[Unit, typer.Option(help="The file's unit of length.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
ModelOption = Annotated[Path | None, typer.Option(help="The folder of a saved model.")]
ConfigOption = Annotated[
    str, typer.Option(help="What to build without --model: a config's name or a YAML file.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: encoder.max_regions=20"),
]
LanguageModelOption = Annotated[
    str | None,
    typer.Option(help="A folder, a hub name or smollm2-135m, instead of the config's."),
]
TextKindOption = Annotated[
    TextKind | None, typer.Option(help="What --text-model is; clip if not given.")
]
TextTokenizerOption = Annotated[
    str | None,
    typer.Option(
        help="With --text-kind slip: a folder or hub name of CLIP's tokenizer, if it does not "
        "lie beside the checkpoint."
    ),
]
ThreadsOption = Annotated[
    int | None, typer.Option(help="CPU threads; half of the processors if not given.")
]
PictureOption = Annotated[Path | None, typer.Option(help="Also draw the boxes: a .png file.")]
DeviceOption = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0; a GPU if there is one, if not given.")
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-pickle",
        help="Load a checkpoint that holds more than plain data. It can run any code.",
    ),
]

PredictionsArgument = Annotated[
    Path | None, typer.Argument(help="Predictions, a JSON file; without it, the model is run.")
]
OutFolderOption = Annotated[
    Path | None, typer.Option("--out", help="A folder for scores.json and scores.md.")
]
JsonReportOption = Annotated[
    bool, typer.Option("--json", help="Print the report as JSON on standard output.")
]
SeedOption = Annotated[int, typer.Option(help="Of the bootstrap and the shuffled scenes.", min=0)]
DrawsOption = Annotated[
    int, typer.Option(help="Draws of the bootstrap; 0 for no intervals.", min=0, max=100_000)
]
PublishedOption = Annotated[
    bool, typer.Option("--as-published", help="Repeat the faults of each project's scorer, named.")
]
SubsetOption = Annotated[
    bool, typer.Option("--subset", help="Score only what there are predictions for.")
]
ScenesOption = Annotated[
    Path | None,
    typer.Option(help="Run the model on these scans: a folder that `o2s prepare` wrote."),
]
LengthOption = Annotated[
    int, typer.Option("--max-new-tokens", help="Where the model's answers are cut off.", min=1)
]
