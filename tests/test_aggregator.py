"""The laws of the aggregator, and one of its layers beside a plain one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from o2s.aggregator import AggregatorConfig, QueryAggregator

WIDTH = 16
Batch = tuple[Tensor, Tensor, Tensor]


def aggregator(**changes: float) -> QueryAggregator:
    """A random one, with queries and biases of order 1 so that nothing hides."""
    values = {"queries": 4, "heads": 2, "position_width": 8} | changes
    config = AggregatorConfig(**values)  # pyright: ignore[reportArgumentType]
    torch.manual_seed(0)
    model = QueryAggregator(config, WIDTH)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def batch(*counts: int, seed: int = 0) -> Batch:
    """Random regions, boxes and mask; what stands in padded places is random as well."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(counts)
    features = torch.randn(len(counts), longest, WIDTH, generator=generator)
    boxes = torch.randn(len(counts), longest, 6, generator=generator)
    return features, boxes, torch.arange(longest) < torch.tensor(counts)[:, None]


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-5)


def plain_forward(model: QueryAggregator, features: Tensor, boxes: Tensor) -> Tensor:
    """One scene without padding, a head at a time."""
    state = model.state_dict()

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def layer_norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name: str, x: Tensor, memory: Tensor) -> Tensor:
        weights = state[f"{name}.in_proj_weight"].chunk(3)
        biases = state[f"{name}.in_proj_bias"].chunk(3)
        inputs = (x, memory, memory)
        q, k, v = (i @ w.T + b for i, w, b in zip(inputs, weights, biases, strict=True))
        heads = []
        for part in torch.arange(WIDTH).chunk(model.config.heads):
            logits = q[:, part] @ k[:, part].T / math.sqrt(len(part))
            heads.append(logits.softmax(dim=-1) @ v[:, part])
        return linear(f"{name}.out_proj", torch.cat(heads, dim=-1))

    regions = features + linear("position.2", linear("position.0", boxes).relu())
    tokens = state["queries"]
    for layer in (f"layers.{i}" for i in range(model.config.layers)):
        crossed = tokens + attention(f"{layer}.cross", tokens, regions)
        tokens = layer_norm(f"{layer}.cross_norm", crossed)
        shared = tokens + attention(f"{layer}.among", tokens, tokens)
        tokens = layer_norm(f"{layer}.among_norm", shared)
        if model.config.feed_forward:
            hidden = torch.nn.functional.gelu(linear(f"{layer}.feed_forward.0", tokens))
            hidden = tokens + linear(f"{layer}.feed_forward.2", hidden)
            tokens = layer_norm(f"{layer}.feed_forward_norm", hidden)
    return tokens


OPTIONS = [{}, {"layers": 3}, {"feed_forward": 24}, {"queries": 1, "heads": 4, "layers": 2}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_are_those_of_the_plain_forward_pass(options: dict[str, float]) -> None:
    model, (features, boxes, mask) = aggregator(**options), batch(5)
    tokens = model(features, boxes, mask)
    assert tokens.shape == (1, model.config.queries, WIDTH)
    assert close(tokens[0], plain_forward(model, features[0], boxes[0]))


@settings(deadline=None, max_examples=15)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_a_batch_equals_its_scenes_one_by_one(counts: list[int], seed: int) -> None:
    model, (features, boxes, mask) = aggregator(), batch(*counts, seed=seed)
    tokens = model(features, boxes, mask)
    for i, count in enumerate(counts):
        alone = model(
            features[i : i + 1, :count], boxes[i : i + 1, :count], mask[i : i + 1, :count]
        )
        assert close(alone[0], tokens[i])


@pytest.mark.parametrize("filling", [0.0, 1e30, torch.inf, -torch.inf, torch.nan])
def test_what_stands_in_padded_places_never_matters(filling: float) -> None:
    """Neither to the tokens nor to the gradients."""
    model, (features, boxes, mask) = aggregator(), batch(5, 2, 0)

    def run(value: float | None) -> list[Tensor]:
        padded = ~mask[..., None]
        filled = [x if value is None else x.masked_fill(padded, value) for x in (features, boxes)]
        model.zero_grad()
        tokens = model(*filled, mask)
        tokens.square().sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        return [tokens.detach(), *gradients]

    assert all(close(a, b) for a, b in zip(run(filling), run(None), strict=True))


def test_the_order_of_the_regions_does_not_matter() -> None:
    model, (features, boxes, mask) = aggregator(layers=2), batch(6, 3)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(1))
    shuffled = model(features[:, order], boxes[:, order], mask[:, order])
    assert close(shuffled, model(features, boxes, mask))


def test_a_region_matters_by_its_feature_and_by_its_box() -> None:
    model, (features, boxes, mask) = aggregator(), batch(4)
    tokens = model(features, boxes, mask)
    swapped = torch.tensor([1, 0, 2, 3])
    assert not close(model(features, boxes[:, swapped], mask), tokens)
    assert not close(model(features[:, swapped], boxes, mask), tokens)


def test_a_masked_region_is_a_region_that_is_not_there() -> None:
    model, (features, boxes, mask) = aggregator(), batch(4)
    holes = torch.tensor([[True, False, True, True]])
    left = model(features[:, holes[0]], boxes[:, holes[0]], mask[:, holes[0]])
    assert close(model(features, boxes, holes), left)
    assert not close(model(features, boxes, mask), left)


@pytest.mark.parametrize("regions", [0, 3])
def test_a_scene_without_regions_gives_the_same_finite_tokens(regions: int) -> None:
    model = aggregator()
    nothing = torch.zeros(2, regions, dtype=torch.bool)
    garbage = torch.randn(2, regions, WIDTH), torch.randn(2, regions, 6)
    tokens = model(*garbage, nothing)
    assert tokens.isfinite().all()
    assert close(tokens[0], tokens[1])
    # One region of zeros stands for none, and no real scene takes part in it.
    zero = torch.zeros(1, 1, WIDTH)
    with torch.no_grad():
        alone = model.layers[0](model.queries[None], zero, torch.ones(1, 1, dtype=torch.bool))
    assert close(tokens[:1], alone)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_reach_every_parameter_and_every_region(options: dict[str, float]) -> None:
    model, (features, boxes, mask) = aggregator(**options).train(), batch(4, 2)
    model(features.requires_grad_(), boxes.requires_grad_(), mask)[..., 0].sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    for tensor in (features, boxes):
        assert tensor.grad is not None
        assert torch.equal(tensor.grad.abs().amax(dim=-1) > 0, mask)


def test_dropout_is_on_in_training_alone() -> None:
    model, inputs = aggregator(dropout=0.5), batch(4)
    assert torch.equal(model(*inputs), model(*inputs))
    assert torch.equal(model(*inputs), aggregator(dropout=0.0)(*inputs))
    model.train()
    assert not close(model(*inputs), model(*inputs))


def test_the_defaults_are_those_of_octavius() -> None:
    config = AggregatorConfig()
    assert (config.queries, config.layers, config.heads, config.feed_forward) == (16, 1, 8, 0)
    assert (config.dropout, config.position_width) == (0.1, 256)


@pytest.mark.parametrize(
    "wrong, message",
    [
        *[({n: 0}, f"{n} is 0, expected at least 1") for n in ("queries", "layers", "heads")],
        ({"position_width": 0}, "position_width is 0, expected at least 1"),
        ({"feed_forward": -1}, "feed_forward is -1, expected 0 or a width"),
        ({"dropout": 1.0}, "dropout is 1.0, expected 0 <= dropout < 1"),
        ({"dropout": float("nan")}, "dropout is nan, expected"),
    ],
    ids=str,
)
def test_a_wrong_config_names_field_value_and_what_was_expected(
    wrong: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        AggregatorConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_a_width_that_the_heads_do_not_divide_is_an_error_that_names_both() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        QueryAggregator(AggregatorConfig(heads=4), 10)
