"""The moving average of the weights that a training run passes through.

The steps of a large learning rate jump about a minimum; their average lies nearer to it than any of
them (Polyak and Juditsky, SIAM J. Control Optim. 1992; Izmailov et al., UAI 2018, arXiv
1803.05407), which steadies the scores from epoch to epoch. Each step moves it by

    average <- d * average + (1 - d) * weights,  d = min(decay, step / (step + 10))

so that the first random weights are soon forgotten.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from o2s.files import replacing

FILE = "average.safetensors"  # in a checkpoint's folder


class WeightAverage(TrainerCallback):
    """Averages all weights and buffers after each step.

    Args:
        decay: above, between 0 and 1; about 1 / (1 - decay) steps count.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        share = 1 - min(self.decay, step / (step + 10))
        for name, now in model.state_dict().items():
            if now.is_floating_point():
                self.weights[name].lerp_(now, share)
            else:
                self.weights[name].copy_(now)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The average as the model's weights inside the block."""
        own = _copy(model)
        model.load_state_dict(self.weights)
        try:
            yield
        finally:
            model.load_state_dict(own)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.weights = _copy(kwargs["model"])
        kept = checkpoint_of(args, state) / FILE
        if kept.is_file():
            for name, tensor in load_file(kept).items():
                self.weights[name].copy_(tensor)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.update(kwargs["model"], state.global_step)

    def save(self, folder: Path) -> None:
        """Keep the average in a checkpoint's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / FILE) as temporary:
            save_file(self.weights, temporary)


def checkpoint_of(args: Any, state: Any) -> Path:
    """The folder of the checkpoint after the last step."""
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
