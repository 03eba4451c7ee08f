"""The options that commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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


class DetectorName(StrEnum):
    """The detectors there are."""

    tr3d = "tr3d"
    detr3d = "detr3d"
    clusters = "clusters"


DEFAULT_CONFIG = "o2s_tiny"  # the model that comes with o2s
ENCODER_CONFIG = "tiny"  # detector and region encoder, for what needs no language model

ScanArgument = Annotated[Path, typer.Argument(help="A scan: .ply, .pcd, .npz or .safetensors.")]
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
