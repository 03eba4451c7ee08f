"""The command `o2s rooms`: simulated scans of furnished rooms."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from o2s.cli_prepare import WorkersOption, default_workers
from o2s.options import check_picture
from o2s.terminal import err, out, print_error, progress_bar, step

if TYPE_CHECKING:
    from o2s.datasets.rooms import RoomsReport

PREVIEWED = 12
LEAST_MODELS = {"train": 1, "test": 2, "val": 6}  # of a class, for the split to get one


def rooms(
    furniture: Annotated[
        Path,
        typer.Option(
            help="Debian's sweethome3d-furniture (.deb or unpacked), a .sh3f, or a folder of "
            "meshes with furniture.csv."
        ),
    ],
    out_folder: Annotated[Path, typer.Option("--out", help="Where to write, as ScanNet's RAW.")],
    scenes: Annotated[int, typer.Option(help="How many rooms.")] = 10,
    seed: Annotated[int, typer.Option(help="Other seeds make other rooms.")] = 0,
    sketched: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another library that train rooms are furnished from as well, such as that of "
            "`o2s furniture`, each library as often as the others; val and test rooms stay as "
            "they are without it. Repeatable."
        ),
    ] = None,
    workers: WorkersOption = None,
    preview: Annotated[
        Path | None, typer.Option(help=f"Also draw the first {PREVIEWED} rooms: a .jpg or .png.")
    ] = None,
) -> None:
    """Make simulated scans of furnished rooms, in ScanNet's raw layout.

    Rooms that are there already are left alone: a command that was interrupted can be run again and
    does the rest. The furniture is read from its own package and is not part of o2s.
    """
    from o2s.datasets.rooms import make_rooms, room_name

    check_picture(preview, "--preview", (".jpg", ".jpeg", ".png"))
    with progress_bar() as progress, step(progress, "making rooms") as update:
        report = make_rooms(
            furniture,
            out_folder,
            rooms=scenes,
            seed=seed,
            sketched=sketched or (),
            workers=default_workers(workers),
            progress=update,
        )
    for why in report.unusable:
        print_error(why)
    print_statistics(report)
    if preview is not None:
        draw_preview(out_folder, [room_name(i) for i in range(min(scenes, PREVIEWED))], preview)
    summary = f"{report.done} rooms made, {report.kept} already there, in {out_folder}"
    out.print(summary, markup=False, highlight=False, soft_wrap=True)


def print_statistics(report: "RoomsReport") -> None:
    """Rooms, objects and the share of their surface that was seen, by split, on standard error."""
    table = Table(
        "split",
        "rooms",
        "objects a room",
        "seen of an object",
        "classes",
        "guessing EM",
        "most frequent",
    )
    for split in ("train", "val", "test"):
        facts = [room for room in report.facts if room.split == split]
        objects = [thing for room in facts for thing in room.objects]
        if facts and not objects:
            print_error(
                f"the {len(facts)} rooms of {split} are empty: the furniture has no model for "
                f"{split}; expected at least {LEAST_MODELS[split]} of a class"
            )
        if not objects:
            continue
        counts = Counter(thing.label for thing in objects)
        table.add_row(
            split,
            str(len(facts)),
            f"{len(objects) / len(facts):.1f}",
            f"{sum(thing.seen for thing in objects) / len(objects):.0%}",
            str(len(counts)),
            f"{report.majority.get(split, 0):.1%}",
            ", ".join(f"{label} {count}" for label, count in counts.most_common(6)),
        )
    err.print(table)


def draw_preview(folder: Path, names: list[str], path: Path) -> None:
    """A contact sheet of some of the rooms in `folder`."""
    from o2s.datasets.rooms import read_facts, room_scene
    from o2s.view.contact_sheet import draw_contact_sheet

    folders = [folder / "scans" / name for name in names]
    scenes = ((room_scene(f), f"{f.name}  {read_facts(f).kind}") for f in folders)
    draw_contact_sheet(scenes, path)
