"""A furniture library of boxes with three models of each class that the rooms' recipes use."""

from pathlib import Path

from furniture_fake import MATERIALS, box, write_table

SIZES = {  # width, depth, height in metres
    **{"door": (0.9, 0.08, 2.0), "window": (1.2, 0.1, 1.2), "curtain": (1.3, 0.1, 2.1)},
    **{"sofa": (1.9, 0.9, 0.8), "table": (1.2, 0.7, 0.75), "tv stand": (1.2, 0.4, 0.5)},
    **{"television": (0.9, 0.15, 0.6), "chair": (0.5, 0.5, 0.9), "bookshelf": (0.9, 0.3, 1.9)},
    **{"bed": (1.5, 2.0, 0.6), "nightstand": (0.45, 0.4, 0.5), "lamp": (0.25, 0.25, 0.4)},
    **{"wardrobe": (1.2, 0.6, 2.1), "dresser": (1.0, 0.45, 0.9), "desk": (1.3, 0.7, 0.75)},
    **{"monitor": (0.5, 0.15, 0.4), "refrigerator": (0.6, 0.6, 1.7), "counter": (1.0, 0.6, 0.9)},
    **{"sink": (0.6, 0.5, 0.9), "stove": (0.6, 0.6, 0.9), "toilet": (0.4, 0.6, 0.8)},
    **{"bathtub": (1.6, 0.7, 0.6), "cabinet": (0.8, 0.4, 1.0), "plant": (0.4, 0.4, 0.9)},
    **{"picture": (0.5, 0.04, 0.4), "trash can": (0.3, 0.3, 0.4), "rug": (1.6, 1.0, 0.01)},
    **{"vase": (0.2, 0.2, 0.3), "microwave": (0.5, 0.35, 0.3), "mirror": (0.6, 0.04, 0.8)},
}


def write_rooms_library(folder: Path, *, each: int = 3) -> Path:
    """`each` models of a class, which differ a little in size and in nothing else."""
    rows, files = ["file,name,class,width,depth,height,creator,licence"], {"box.mtl": MATERIALS}
    for label, size in SIZES.items():
        for number in range(each):
            name = f"{label.replace(' ', '_')}_{number}.obj"
            width, depth, height = (round(s * (1 + 3 * number / (20 * each)), 3) for s in size)
            rows.append(f"{name},{label} {number},{label},{width},{depth},{height},Ann,CC0")
            files[name] = box() + f"# {name}\n"
    return write_table(folder, rows, files)
