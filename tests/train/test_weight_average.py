"""The moving average of weights against its definition."""

import torch
from torch import nn

from o2s.train.weight_average import WeightAverage


def test_it_is_the_sum_of_its_definition() -> None:
    torch.manual_seed(0)
    model = nn.BatchNorm1d(3)
    average = WeightAverage(0.9)
    average.on_train_begin(_Folder(), _State(0), None, model=model)
    expected = model.weight.detach().clone()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.normal_()
        model(torch.randn(4, 3))
        average.on_step_end(_Folder(), _State(step), None, model=model)
        decay = min(0.9, step / (step + 10))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(average.weights["weight"], expected)
    assert average.weights["num_batches_tracked"] == 199
    assert average.weights["weight"].std() < model.weight.std()


def test_the_model_gets_its_own_weights_back() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(0.9)
    average.on_train_begin(_Folder(), _State(0), None, model=model)
    with torch.no_grad():
        model.weight.add_(1)
    own = model.weight.detach().clone()
    with average.applied(model):
        torch.testing.assert_close(model.weight, own - 1)
    assert torch.equal(model.weight, own)


class _Folder:
    output_dir = "nowhere"


class _State:
    is_world_process_zero = True

    def __init__(self, step: int) -> None:
        self.global_step = step
