"""A library of made-up furniture: as many pieces of each class as are wanted, free of any licence.

Libraries of real models have many chairs and one microwave. What is drawn here has the sizes,
proportions and colours that such things have, and as many forms of each as `count` says; the folder
is one that `o2s rooms --furniture` and `o2s train regions` read.
"""

import csv
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from o2s.datasets.furniture_catalogues import TABLE, TABLE_COLUMNS
from o2s.datasets.sketch import Sketch
from o2s.datasets.sketched_appliances import APPLIANCES
from o2s.datasets.sketched_belongings import BELONGINGS
from o2s.datasets.sketched_electronics import ELECTRONICS
from o2s.datasets.sketched_fixtures import FIXTURES
from o2s.datasets.sketched_household import HOUSEHOLD
from o2s.datasets.sketched_seats import SEATS
from o2s.datasets.sketched_storage import STORAGE
from o2s.datasets.sketched_vessels import VESSELS
from o2s.errors import InputError
from o2s.files import alone_in, clear_leftovers, replacing, write_text

SHAPES: dict[str, Callable[[Sketch], str]] = {
    **SEATS,
    **STORAGE,
    **FIXTURES,
    **APPLIANCES,
    **ELECTRONICS,
    **HOUSEHOLD,
    **VESSELS,
    **BELONGINGS,
}
LICENCE = "Creative Commons Zero"
_COLUMNS = (*TABLE_COLUMNS, "elevation")


def write_furniture(
    out: Path,
    *,
    count: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Draw furniture, one `.glb` a piece, and the `furniture.csv` that lists it.

    Pieces that are there already are left alone, and stay listed; the list is written anew after
    each class.

    Args:
        out: the folder.
        count: pieces of each class.
        seed: other seeds make other pieces.
        progress: called with the number of pieces done and of all.

    Returns:
        The number of pieces in the folder's list.

    Raises:
        InputError: trimesh is not installed, or the folder has a list of another kind.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    total = count * len(SHAPES)
    with alone_in(out):
        clear_leftovers(out)
        there = {row[0]: row for row in _listed(out)}
        for label in SHAPES:
            for number in range(count):
                file = f"{label.replace(' ', '_')}_{seed}_{number:03}.glb"
                if file in there:
                    rows.append(there.pop(file))
                else:
                    name, sketch = sketch_piece(label, seed, number)
                    with replacing(out / file) as temporary:
                        temporary.write_bytes(glb_of(sketch))
                    hangs = str(sketch.elevation or "")
                    rows.append((file, name, label, "o2s", LICENCE, hangs))
                progress(len(rows), total)
            _list(out, [*there.values(), *rows])
    return len(there) + len(rows)


def _list(folder: Path, rows: Sequence[tuple[str, ...]]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(rows)
    write_text(folder / TABLE, table.getvalue())


def _listed(folder: Path) -> list[tuple[str, ...]]:
    """The rows of the folder's list, if there is one, of the files that are there."""
    if not (folder / TABLE).is_file():
        return []
    with (folder / TABLE).open(newline="", encoding="utf-8", errors="replace") as table:
        reader = csv.DictReader(table)
        # The second is what earlier versions wrote.
        if tuple(reader.fieldnames or ()) not in (_COLUMNS, TABLE_COLUMNS):
            raise InputError(
                f"{folder / TABLE}: columns {reader.fieldnames}; expected {','.join(_COLUMNS)}, or "
                "another folder"
            )
        rows = [tuple(row.get(column, "") for column in _COLUMNS) for row in reader]
    return [row for row in rows if (folder / row[0]).is_file()]


def sketch_piece(label: str, seed: int, number: int) -> tuple[str, Sketch]:
    """The name and the parts of one piece of a class in SHAPES."""
    sketch = Sketch(random.Random(f"{label} {seed} {number}"))
    return SHAPES[label](sketch), sketch


def glb_of(sketch: Sketch) -> bytes:
    """The parts as a binary glTF file: y up, the front towards +z, one mesh a colour.

    Raises:
        InputError: trimesh is not installed.
    """
    try:
        import trimesh
        from trimesh.visual import TextureVisuals
        from trimesh.visual.material import PBRMaterial
    except ImportError:
        raise InputError(
            'furniture is written by trimesh, which is missing: pip install "o2s[rooms]"'
        ) from None
    scene: Any = trimesh.Scene()
    for color in dict.fromkeys(part.color for part in sketch.parts):
        parts = [part for part in sketch.parts if part.color == color]
        starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
        faces = [part.faces + start for part, start in zip(parts, starts, strict=True)]
        x, y, z = np.concatenate([part.vertices for part in parts]).T
        material = PBRMaterial(baseColorFactor=[*color, 255])
        scene.add_geometry(
            trimesh.Trimesh(
                np.stack([x, z, -y], axis=1),
                np.concatenate(faces),
                visual=TextureVisuals(material=material),
                process=False,
            )
        )
    return bytes(scene.export(file_type="glb"))
