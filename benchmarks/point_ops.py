"""Point operations on one CPU thread, ours against others: `python benchmarks/point_ops.py`.

One simulated furnished room is scanned with 40,000 and 200,000 points. Where two strategies define
the same result they are compared first, and the script fails if they differ. Times are the best of
several runs in milliseconds of wall time; the ratio is the other's time over ours. The peers
fpsample, pykdtree, scikit-learn and open3d take part if they are installed.
"""

import importlib
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.spatial import KDTree

from o2s.ops.boxes import nms_3d, points_in_boxes
from o2s.ops.neighbours import ball_query, nearest_neighbours
from o2s.ops.sampling import farthest_point_sample
from o2s.ops.voxels import connected_components, voxel_mean, voxelize

Row = tuple[str, Callable[[], Any], str, Callable[[], Any]]


def main() -> None:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the peers, which are loaded after this
    console = Console()
    peers = {
        name: load(name) for name in ("fpsample", "pykdtree.kdtree", "sklearn.cluster", "open3d")
    }
    for name, module in peers.items():
        if module is None:
            console.print(f"{name} is not installed: its rows are left out")
    table = Table("operation", "points", "ours ms", "other", "other ms", "ratio")
    for size in (40_000, 200_000):
        points = scan_room(size, seed=0)
        for name, ours, other, theirs in operations(points, peers):
            mine, yours = best_time(ours), best_time(theirs)
            cells = (f"{size:,}", f"{mine:.1f}", other, f"{yours:.1f}", f"{yours / mine:.1f}")
            table.add_row(name, *cells)
    for name, ours, other, theirs in suppression():
        mine, yours = best_time(ours), best_time(theirs)
        table.add_row(name, "", f"{mine:.1f}", other, f"{yours:.1f}", f"{yours / mine:.1f}")
    console.print(table)


def scan_room(size: int, seed: int) -> torch.Tensor:
    """Points on the walls and on two dozen pieces of furniture, with 3 mm of noise, shuffled."""
    generator = np.random.default_rng(seed)
    centres, sizes = [np.array([3.0, 2.5, 1.4])], [np.array([6.0, 5.0, 2.8])]
    for _ in range(24):
        sizes.append(generator.uniform(0.3, 1.8, 3) * [1, 1, 0.6])
        centres.append(np.array([*generator.uniform(0.5, [5.5, 4.5]), sizes[-1][2] / 2]))
    faces = np.array([[s[1] * s[2], s[0] * s[2], s[0] * s[1]] for s in sizes])
    face = generator.choice(faces.size, size, p=faces.ravel() / faces.sum())
    box, axis = face // 3, face % 3
    local = generator.uniform(-0.5, 0.5, (size, 3))
    local[np.arange(size), axis] = generator.choice([-0.5, 0.5], size)
    points = local * np.array(sizes)[box] + np.array(centres)[box]
    return torch.from_numpy(points + generator.normal(0, 0.003, (size, 3))).float()


def operations(points: torch.Tensor, peers: dict[str, ModuleType | None]) -> Iterator[Row]:
    """The name of an operation, our call, the other's name and its call."""
    batch, array = points[None], points.numpy()
    fpsample, pykdtree = peers["fpsample"], peers["pykdtree.kdtree"]
    clusters, open3d = peers["sklearn.cluster"], peers["open3d"]
    for count in (512, 2048):
        name = f"farthest point sampling to {count}"

        def ours(count: int = count) -> torch.Tensor:
            return farthest_point_sample(batch, count)

        def plain(count: int = count) -> torch.Tensor:
            return farthest_point_sample(batch, count, backend="torch")

        assert torch.equal(ours(), plain())
        yield name, ours, "torch", plain
        if fpsample is not None:  # picks its own first point, so the indices are not comparable
            peer = partial(fpsample.bucket_fps_kdline_sampling, array, count, h=7)
            yield name, ours, "fpsample kdline h=7", peer

    queries = batch[:, farthest_point_sample(batch, 2048)[0]]
    wanted = queries[0].numpy()
    name = "32 nearest neighbours of 2048"

    def nearest() -> torch.Tensor:
        return nearest_neighbours(queries, batch, 32)

    def nearest_plain() -> torch.Tensor:
        return nearest_neighbours(queries, batch, 32, backend="torch")

    def nearest_scipy() -> Any:
        tree = KDTree(array, balanced_tree=False, compact_nodes=False)
        return tree.query(wanted, k=32)[1]

    assert torch.equal(nearest(), nearest_plain())
    # A distance differs in its last bits between float32 and float64, so neighbours may swap.
    assert (nearest_scipy() == nearest()[0].numpy()).mean() > 0.999
    yield name, nearest, "torch", nearest_plain
    yield name, nearest, "scipy, build + query", nearest_scipy
    if pykdtree is not None:
        peer = pykdtree.KDTree
        yield name, nearest, "pykdtree, build + query", lambda: peer(array).query(wanted, k=32)

    for order in ("index", "nearest"):

        def ball(order: Any = order) -> Any:
            return ball_query(queries, batch, 0.2, 64, order=order)

        def ball_plain(order: Any = order) -> Any:
            return ball_query(queries, batch, 0.2, 64, order=order, backend="torch")

        assert torch.equal(ball().indices, ball_plain().indices)
        yield f"ball query r 0.2, 64 by {order}", ball, "torch", ball_plain

    yield (
        "voxel mean, 5 cm",
        lambda: voxel_mean(points, voxelize(points, 0.05)),
        "numpy unique",
        lambda: np.unique(np.floor(array / 0.05).astype(np.int64), axis=0, return_inverse=True),
    )
    if open3d is not None:
        cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(array.astype(np.float64)))
        yield (
            "voxel mean, 5 cm",
            lambda: voxel_mean(points, voxelize(points, 0.05)),
            "open3d",
            lambda: cloud.voxel_down_sample(0.05),
        )
    if clusters is not None:
        scan = clusters.DBSCAN(eps=0.05, min_samples=1)
        yield (
            "clusters, 5 cm",
            lambda: connected_components(voxelize(points, 0.05).coordinates),
            "sklearn DBSCAN",
            lambda: scan.fit(array),
        )

    boxes = random_boxes(64, seed=1)

    def inside() -> torch.Tensor:
        return points_in_boxes(points, boxes)

    def inside_plain() -> torch.Tensor:
        return points_in_boxes(points, boxes, backend="torch")

    assert torch.equal(inside(), inside_plain())
    yield "points in 64 boxes", inside, "torch", inside_plain


def suppression() -> Iterator[Row]:
    """The same for non-maximum suppression of boxes in the room."""
    for count in (1000, 5000):
        boxes, scores = random_boxes(count, seed=2), torch.linspace(1, 0, count)

        def ours(boxes: torch.Tensor = boxes, scores: torch.Tensor = scores) -> torch.Tensor:
            return nms_3d(boxes, scores, 0.25)

        def plain(boxes: torch.Tensor = boxes, scores: torch.Tensor = scores) -> torch.Tensor:
            return nms_3d(boxes, scores, 0.25, backend="torch")

        assert torch.equal(ours(), plain())
        yield f"suppression of {count} boxes", ours, "torch", plain


def random_boxes(count: int, seed: int) -> torch.Tensor:
    """Upright boxes of 0.2 to 1.2 m in the room of `scan_room`."""
    generator = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 7, generator=generator)
    return boxes * torch.tensor([6, 5, 2.8, 1, 1, 1, 0]) + torch.tensor([0, 0, 0, 0.2, 0.2, 0.2, 0])


def best_time(call: Callable[[], Any], seconds: float = 1.0) -> float:
    """Milliseconds of the fastest of up to ten runs within about `seconds`, after a first one."""
    call()
    times, began = [], time.perf_counter()
    while len(times) < 10 and (not times or time.perf_counter() - began < seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1e3


def load(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


if __name__ == "__main__":
    main()
