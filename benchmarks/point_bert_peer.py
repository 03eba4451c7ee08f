"""ULIP's own Point-BERT out of a clone of salesforce/ULIP, on the CPU; used by point_bert.py.

The files `models/pointbert/{point_encoder,dvae,misc,checkpoint,logger}.py` run untouched. What they
import and a CPU lacks stands here: the CUDA sampler is our compiled one with the sampler's quirk,
gathering is torch's. Their search for neighbours is plain torch and stays theirs; the CUDA one is
only made, never called. Plots and coloured text are never reached.
"""

import importlib
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from o2s.ops.sampling import farthest_point_sample
from o2s.point_bert import Block, PointBert, PointBertConfig


def load_ulip(clone: Path, config: PointBertConfig) -> nn.Module:
    """ULIP's module of our size, with weights of its own and without stochastic depth.

    Raises:
        FileNotFoundError: the folder is no clone of ULIP.
    """
    file = clone / "models" / "pointbert" / "point_encoder.py"
    if not file.is_file():
        raise FileNotFoundError(f"{clone} is no clone of salesforce/ULIP: it lacks {file}")
    _stand_in("models", __path__=[str(clone / "models")])
    _stand_in("models.pointbert", __path__=[str(file.parent)])
    for name, members in _LACKING.items():
        _stand_in(name, **members)
    code = importlib.import_module("models.pointbert.point_encoder")
    made = code.PointTransformer if config.channels == 3 else code.PointTransformer_Colored
    sizes = {
        "trans_dim": config.width,
        "depth": config.depth,
        "drop_path_rate": 0.0,
        "cls_dim": 40,
        "num_heads": config.heads,
        "group_size": config.neighbours,
        "num_group": config.groups,
        "encoder_dims": config.group_width,
    }
    with redirect_stdout(StringIO()):  # it prints its size
        return made(SimpleNamespace(**sizes), args=SimpleNamespace(evaluate_3d=True))


def ours_with_weights_of(ulip: nn.Module, config: PointBertConfig) -> PointBert:
    """Our module with the same weights, by way of a checkpoint such as ULIP saves."""
    state = {f"module.point_encoder.{key}": value for key, value in ulip.state_dict().items()}
    state["module.pc_projection"] = torch.randn(config.feature_width, config.embedding)
    model = PointBert.from_ulip(state)
    model.config = config  # what a checkpoint does not tell, such as the sampler's quirk
    for block in model.modules():
        if isinstance(block, Block):
            block.drop_path = 0.0
    return model


def _sample(points: Tensor, count: int) -> Tensor:
    """`pointnet2_utils.furthest_point_sample`: [B, N, 3] -> [B, count]."""
    return farthest_point_sample(points.float(), count, skip_near_origin=True).int()


def _gather(features: Tensor, indices: Tensor) -> Tensor:
    """`pointnet2_utils.gather_operation`: [B, C, N], [B, K] -> [B, C, K]."""
    return features.gather(2, indices.long()[:, None].expand(-1, features.shape[1], -1))


class _Unused:
    """What is imported, perhaps made, and never called."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass


_LACKING: dict[str, dict[str, Any]] = {
    "pointnet2_ops": {
        "pointnet2_utils": SimpleNamespace(furthest_point_sample=_sample, gather_operation=_gather)
    },
    "knn_cuda": {"KNN": _Unused},
    "timm": {"__path__": []},
    "timm.models": {"__path__": []},
    "timm.models.layers": {"DropPath": _Unused},
    "termcolor": {"colored": _Unused},
    "matplotlib": {"__path__": []},
    "matplotlib.pyplot": {},
    "mpl_toolkits": {"__path__": []},
    "mpl_toolkits.mplot3d": {"Axes3D": _Unused},
}


def _stand_in(name: str, **members: Any) -> None:
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(members)
