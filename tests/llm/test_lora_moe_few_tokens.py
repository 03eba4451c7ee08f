"""On a CPU a few tokens read the experts of their rows alone, with the sum that all give."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from o2s.llm.lora_moe import LoraMoeConfig, LoraMoeLinear, Route
from o2s.llm.lora_moe import layer as lora_moe_layer
from o2s.llm.lora_moe.gate import RouteState

WEIGHTS = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4]])
RANKS = (1, 3, 4, 10)  # what is left over of four at a time: 1, 3, 0, 2


def layer_of(
    r: int, weights: Tensor = WEIGHTS, dtype: torch.dtype = torch.float32
) -> LoraMoeLinear:
    torch.manual_seed(0)
    state = RouteState()
    config = LoraMoeConfig(r=r, lora_alpha=2.0 * r)
    layer = LoraMoeLinear(nn.Linear(12, 7, dtype=dtype), "default", config, state)
    nn.init.normal_(layer.lora_moe_B["default"])
    state.current = {"default": Route.from_weights(weights)}
    return layer.eval()


def plain(layer: LoraMoeLinear, x: Tensor, weights: Tensor = WEIGHTS) -> Tensor:
    """The sum over all experts."""
    out = layer.base_layer(x)
    for row in range(len(x)):
        for a, b, w in zip(
            layer.lora_moe_A["default"], layer.lora_moe_B["default"], weights[row], strict=True
        ):
            out[row] += 2 * w * (x[row] @ a.T @ b.T)
    return out


def was_routed(layer: LoraMoeLinear) -> bool:
    return "default routed" in layer._kept


@pytest.mark.parametrize("quiet", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("r", RANKS)
@pytest.mark.parametrize("shape", [(2, 12), (2, 1, 12), (2, 4, 12), (2, 2, 2, 12), (2, 5, 12)])
def test_it_is_the_plain_sum(
    shape: tuple[int, ...],
    r: int,
    loops: bool,
    quiet: Callable[[], torch.no_grad],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not loops:  # what a GPU does
        monkeypatch.setattr(lora_moe_layer, "_in_float32_on_cpu", lambda *values: False)
    layer, x = layer_of(r), torch.randn(shape)
    with quiet():
        expected = plain(layer, x)
        for _ in range(2):
            torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    tokens = x.numel() // 24
    assert was_routed(layer) == (loops and tokens <= 4)


@torch.no_grad()
def test_other_routes_and_weights_are_not_mistaken_for_the_kept_ones() -> None:
    layer, x = layer_of(10), torch.randn(2, 1, 12)
    layer(x)
    flipped = WEIGHTS.flip(0)
    layer.state.current = {"default": Route.from_weights(flipped)}
    torch.testing.assert_close(layer(x), plain(layer, x, flipped), atol=1e-5, rtol=1e-5)
    layer.lora_moe_B["default"].mul_(-1)
    torch.testing.assert_close(layer(x), plain(layer, x, flipped), atol=1e-5, rtol=1e-5)
    layer.lora_moe_A["default"].mul_(3)
    torch.testing.assert_close(layer(x), plain(layer, x, flipped), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_beams_take_the_route_of_their_row() -> None:
    layer, x = layer_of(10), torch.randn(6, 1, 12)
    expected = plain(layer, x, WEIGHTS.repeat_interleave(3, dim=0))
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)
    assert was_routed(layer)


@torch.no_grad()
def test_what_the_base_layer_returned_is_left_alone() -> None:
    layer, x, said = layer_of(10), torch.randn(2, 1, 12), []
    layer.base_layer.register_forward_hook(lambda module, args, out: said.append(out))
    layer(x)
    expected = layer.base_layer(x)
    assert torch.equal(said[0], expected)


def test_gradients_and_other_types_go_other_ways() -> None:
    layer, x = layer_of(10), torch.randn(2, 1, 12)
    layer(x).sum().backward()
    assert layer.lora_moe_B["default"].grad is not None
    half = layer_of(10, dtype=torch.bfloat16)
    with torch.no_grad():
        found = half(x.bfloat16())
        expected = plain(half, x.bfloat16().float().bfloat16()).float()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.3, rtol=0.05)
    assert not was_routed(layer)
    assert not was_routed(half)
