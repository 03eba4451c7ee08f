"""Detectors on one CPU thread: `python benchmarks/detectors.py`.

A simulated furnished room of 100,000 points through each detector, and 40,000 points through both
3DETRs, ours beside the public one if `--detr3d CLONE` names a clone of facebookresearch/3detr. Its
compiled operations are replaced by ours, which are the fastest at hand, so that what is compared is
the rest; outputs are compared first, with the same random weights, and the script fails if they
differ. Times are the best of several runs in milliseconds of wall time.
"""

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from point_ops import best_time, scan_room
from rich.console import Console
from rich.table import Table
from torch import Tensor

from o2s.detect import ClusterDetector, Detr3d, Detr3dConfig, Tr3d, Tr3dConfig
from o2s.encoder import EncoderConfig, build_detector
from o2s.ops.neighbours import ball_query
from o2s.ops.sampling import farthest_point_sample
from o2s.scene import Scene


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--detr3d", type=Path, help="a clone of github.com/facebookresearch/3detr")
    clone = parser.parse_args().detr3d
    table = Table("detector", "points", "parameters", "ours ms", "public ms", "ratio")
    points = scan_room(100_000, seed=0)
    colors = torch.rand(len(points), 3, generator=torch.Generator().manual_seed(0))
    scene = Scene("room", points, colors, None, torch.eye(4, dtype=torch.float64))
    shipped = build_detector(EncoderConfig(detector="tr3d"))
    for name, detector in (
        ("clusters", ClusterDetector()),
        ("tr3d_tiny, cells of 4 cm", shipped),
        ("TR3D as published, cells of 1 cm", Tr3d(Tr3dConfig()).eval()),
    ):
        milliseconds = best_time(lambda detector=detector: detector(scene))
        table.add_row(name, "100,000", parameters(detector), f"{milliseconds:.0f}", "", "")
    for masked in (False, True):
        name = "3DETR-m" if masked else "3DETR"
        torch.manual_seed(0)
        ours = Detr3d(Detr3dConfig(masked=masked)).eval()
        cloud = points[None, :40_000].contiguous()
        with torch.no_grad():
            mine = best_time(lambda ours=ours, cloud=cloud: ours.outputs(cloud))
            row = [name, "40,000", parameters(ours), f"{mine:.0f}", "", ""]
            if clone is not None:
                public = public_3detr(clone, masked)
                public.load_state_dict(ours.state_dict())
                given = {
                    "point_clouds": cloud,
                    "point_cloud_dims_min": cloud.amin(dim=1),
                    "point_cloud_dims_max": cloud.amax(dim=1),
                }
                compare(ours, cloud, public, given)
                yours = best_time(lambda public=public, given=given: public(given))
                row[4:] = [f"{yours:.0f}", f"{mine / yours:.2f}"]
        table.add_row(*row)
    Console().print(table)


def parameters(module: torch.nn.Module) -> str:
    """How many, in millions."""
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.1f}M"


def compare(ours: Detr3d, cloud: Tensor, public: torch.nn.Module, given: dict[str, Tensor]) -> None:
    """Fails unless both say the same of a cloud, up to rounding."""
    mine, theirs = ours.outputs(cloud), public(given)["outputs"]
    for a, b in (
        (mine.logits, theirs["sem_cls_logits"]),
        (mine.centres, theirs["center_unnormalized"]),
        (mine.sizes, theirs["size_unnormalized"]),
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def public_3detr(clone: Path, masked: bool) -> torch.nn.Module:
    """The public network, its compiled operations replaced by ours."""
    operations: Any = ModuleType("pointnet2._ext")
    operations.furthest_point_sampling = lambda xyz, count: farthest_point_sample(
        xyz, count, skip_near_origin=True
    ).int()
    operations.ball_query = lambda centres, xyz, radius, count: ball_query(
        centres, xyz, radius, count
    ).indices.int()
    operations.group_points = operations.gather_points = pick
    package: Any = ModuleType("pointnet2")
    package._ext = operations
    sys.modules |= {"pointnet2": package, "pointnet2._ext": operations}
    for name in ("plyfile", "trimesh", "h5py"):
        stand_in: Any = ModuleType(name)
        stand_in.PlyData = stand_in.PlyElement = None
        sys.modules.setdefault(name, stand_in)
    for folder in (clone / "third_party" / "pointnet2", clone):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    sys.modules.pop("datasets", None)  # not Hugging Face's
    config = importlib.import_module("datasets.scannet").ScannetDatasetConfig()
    build = importlib.import_module("models.model_3detr").build_3detr
    settings = argparse.Namespace(
        enc_type="masked" if masked else "vanilla",
        enc_nlayers=3,
        enc_dim=256,
        enc_ffn_dim=128,
        enc_dropout=0.1,
        enc_nhead=4,
        enc_activation="relu",
        dec_nlayers=8,
        dec_dim=256,
        dec_ffn_dim=256,
        dec_dropout=0.1,
        dec_nhead=4,
        mlp_dropout=0.3,
        preenc_npoints=2048,
        nqueries=256,
        use_color=False,
    )
    return build(settings, config)[0].eval()


def pick(features: Tensor, index: Tensor) -> Tensor:
    """The columns of [B, C, N] that `index` names for each cloud."""
    return torch.stack([f[:, i.long()] for f, i in zip(features, index, strict=True)])


if __name__ == "__main__":
    main()
