"""Linear layers by oneDNN equal torch's own, in values, gradients and in what they leave alone."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from o2s.ops import linear as wide
from o2s.ops.linear import Linear, is_wide, linear, widen

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN"
)


@pytest.fixture(autouse=True)
def everything_by_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products too, and on processors without AVX-512."""
    monkeypatch.setattr(wide, "AVX512", True)
    monkeypatch.setattr(wide, "FEWEST_ROWS", 1)
    monkeypatch.setattr(wide, "FEWEST_STEPS", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of what is multiplied by oneDNN."""
    shapes: list[tuple[int, ...]] = []
    onednn = wide._onednn

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        shapes.append((*x.shape, len(weight)))
        return onednn(x, weight, bias)

    monkeypatch.setattr(wide, "_onednn", counted)
    return shapes


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda weight: weight,
    "columns": lambda weight: weight.T.contiguous().T,
    "a part of the columns": lambda weight: torch.cat([weight, weight], dim=1)[:, :48],
    "every other row": lambda weight: weight.repeat_interleave(2, dim=0)[::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("shape", [(48,), (7, 48), (3, 5, 48), (2, 3, 4, 48), (2500, 48)])
def test_values_and_gradients_are_those_of_torch(
    shape: tuple[int, ...], biased: bool, layout: str, calls: list[tuple[int, ...]]
) -> None:
    given = [drawn(*shape), drawn(32, 48, seed=1), drawn(32, seed=2)][: 3 if biased else 2]
    grad = drawn(*shape[:-1], 32, seed=3)

    def run(function: Callable[..., Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        leaves = [value.clone().requires_grad_() for value in given]
        x, weight, *bias = leaves
        out = function(x, LAYOUTS[layout](weight), *bias)
        return out, torch.autograd.grad(out, leaves, grad)

    expected, expected_grads = run(F.linear)
    found, found_grads = run(linear)
    assert calls[0] == (*shape, 32)
    assert len(calls) >= 3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-5)
    with torch.no_grad():
        x, weight, *bias = given
        plain = linear(x, LAYOUTS[layout](weight), *bias)
    torch.testing.assert_close(plain, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_input_and_gradient_may_have_any_layout(layout: str) -> None:
    x = drawn(48, 6).T if layout == "transposed" else drawn(1, 48).expand(6, -1)
    weight = drawn(32, 48, seed=1).requires_grad_()
    linear(x, weight).sum().backward()  # whose gradient is one number, expanded
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(32, -1), atol=1e-5, rtol=1e-5)


def test_only_gradients_that_are_wanted_are_computed(calls: list[tuple[int, ...]]) -> None:
    x, weight = drawn(6, 48).requires_grad_(), drawn(32, 48)
    linear(x, weight).sum().backward()
    assert calls == [(6, 48, 32), (6, 32, 48)]
    calls.clear()
    x, weight = drawn(6, 48), drawn(32, 48).requires_grad_()
    linear(x, weight).sum().backward()
    assert calls == [(6, 48, 32), (32, 6, 48)]
    calls.clear()
    bias = drawn(32).requires_grad_()
    out = linear(x, drawn(32, 48), bias)
    assert not [v for v in (out.grad_fn.saved_tensors if out.grad_fn else ()) if v is not None]
    out.sum().backward()
    assert calls == [(6, 48, 32)]
    torch.testing.assert_close(bias.grad, torch.full((32,), 6.0))


def test_second_derivatives_are_those_of_torch(calls: list[tuple[int, ...]]) -> None:
    def run(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        leaves = [drawn(6, 48), drawn(32, 48, seed=1), drawn(32, seed=2)]
        leaves = [value.requires_grad_() for value in leaves]
        out = function(*leaves).square().sum()
        first = torch.autograd.grad(out, leaves, create_graph=True)
        return torch.autograd.grad([g.square().sum() for g in first], leaves)

    for ours, theirs in zip(run(linear), run(F.linear), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-4)
    assert calls


def test_transforms_of_functions_are_torchs(calls: list[tuple[int, ...]]) -> None:
    x, weight = drawn(6, 48), drawn(32, 48, seed=1)
    of_rows = torch.func.vmap(lambda row: linear(row[None], weight)[0])
    torch.testing.assert_close(of_rows(x), F.linear(x, weight))
    found = torch.func.grad(lambda w: linear(x, w).square().sum())(weight)
    torch.testing.assert_close(found, 2 * F.linear(x, weight).T @ x, atol=1e-3, rtol=1e-4)
    assert not calls


def test_checkpointing_gives_the_same_gradients() -> None:
    x, layer = drawn(6, 48).requires_grad_(), Linear(48, 32)
    expected = torch.autograd.grad(layer(x).square().sum(), x)
    again = checkpoint(layer, x, use_reentrant=False)
    assert isinstance(again, Tensor)
    torch.testing.assert_close(torch.autograd.grad(again.square().sum(), x), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types_are_torchs(dtype: torch.dtype, calls: list[tuple[int, ...]]) -> None:
    x, weight = drawn(6, 48).to(dtype), drawn(32, 48).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert not calls


def test_autocast_is_torchs(calls: list[tuple[int, ...]]) -> None:
    x, weight = drawn(6, 48), drawn(32, 48)
    with torch.autocast("cpu", torch.bfloat16):
        found = linear(x, weight)
    assert found.dtype == torch.bfloat16
    assert not calls


def test_nothing_in_is_nothing_out(calls: list[tuple[int, ...]]) -> None:
    x, weight = torch.zeros(0, 48, requires_grad=True), drawn(32, 48).requires_grad_()
    out = linear(x, weight)
    out.sum().backward()
    assert out.shape == (0, 32)
    assert weight.grad is not None
    assert not weight.grad.any()
    assert not calls


def test_few_rows_and_small_products_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide, "FEWEST_ROWS", 4)
    monkeypatch.setattr(wide, "FEWEST_STEPS", 1000)
    assert is_wide(drawn(2, 2, 25), drawn(10, 25))
    assert not is_wide(drawn(3, 50), drawn(10, 50))
    assert not is_wide(drawn(4, 25), drawn(9, 25))
    monkeypatch.setattr(wide, "AVX512", False)
    assert not is_wide(drawn(2, 2, 25), drawn(10, 25))


COMPILED = """
import torch
import torch.nn.functional as F
from o2s.ops import linear as wide

wide.AVX512, wide.FEWEST_ROWS, wide.FEWEST_STEPS = True, 1, 1
compiled = torch.compile(wide.linear, backend="eager", fullgraph=True, dynamic=True)
weight = torch.randn(32, 48)
for rows in (6, 7, 8):
    x = torch.randn(rows, 48)
    with torch._dynamo.config.patch(error_on_recompile=rows > 6):
        assert torch.equal(compiled(x, weight), F.linear(x, weight))
"""


def test_compiled_it_is_torchs() -> None:
    """In a process of its own: the checks of shapes cannot be compiled."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_widened_model_keeps_parameters_and_hooks(calls: list[tuple[int, ...]]) -> None:
    class Other(nn.Linear):
        """A kind of its own, such as a quantised one."""

    model = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), Other(32, 8))
    x, seen = drawn(6, 48), []
    model[0].register_forward_hook(lambda module, args, out: seen.append(out))
    expected, names = model(x), list(model.state_dict())
    parameters = list(model.parameters())
    widen(model)
    assert isinstance(model[0], Linear)
    assert type(model[2]) is Other
    assert list(model.state_dict()) == names
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    torch.testing.assert_close(model(x), expected)
    assert len(seen) == 2
    assert calls == [(6, 48, 32)]
