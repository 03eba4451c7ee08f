"""The ways in which LoRA-MoE chooses experts, each against a plain loop."""

import math
from typing import Any, cast

import pytest
import torch
from adapted import ASKED, CALLS, GATES, IDS, MASK, QUESTIONS, adapted, logits
from torch import Tensor, nn

from o2s.llm.lora_moe import LoraMoeConfig, LoraMoeLinear, Route
from o2s.llm.lora_moe.gate import (
    ConstantGate,
    Gate,
    RouteState,
    chosen_chances,
    mean_of_question,
    unevenness,
)


def layer_of(**options: Any) -> tuple[LoraMoeLinear, RouteState]:
    torch.manual_seed(0)
    state = RouteState(width=9)
    config = LoraMoeConfig(**{"r": 3, "lora_alpha": 6.0, **options})
    layer = LoraMoeLinear(nn.Linear(12, 7), "default", config, state, "q_proj")
    nn.init.normal_(layer.lora_moe_B["default"])
    return layer, state


def plain(layer: LoraMoeLinear, x: Tensor, weights: Tensor) -> Tensor:
    """The reference: every expert by itself, for the weights [B, T, E]."""
    a, b = layer.lora_moe_A["default"], layer.lora_moe_B["default"]
    out = layer.base_layer(x)
    for expert in range(len(a)):
        said = layer.scaling["default"] * (x @ a[expert].T @ b[expert].T)
        out = out + weights[..., expert : expert + 1] * said
    return out


@pytest.mark.parametrize("learns", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("tokens", [1, 2, 9])
@pytest.mark.parametrize("one", [False, True], ids=["routes differ", "one route"])
def test_every_way_to_compute_it_is_the_sum_over_experts(
    tokens: int, one: bool, learns: bool
) -> None:
    layer, state = layer_of()
    weights = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4], [0.0, 0.0, 0.0, 1.0]])
    if one:
        weights = weights[:1].expand(3, 4)
    state.current = {"default": Route.from_weights(weights)}
    x = torch.randn(3, tokens, 12)
    expected = plain(layer, x, weights[:, None])
    with torch.set_grad_enabled(learns):
        for _ in range(2):  # the second time what was kept is used
            torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("tokens", [1, 9])
def test_the_gradients_are_those_of_the_sum(tokens: int) -> None:
    layer, state = layer_of()
    weights = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4]]).requires_grad_()
    x = torch.randn(2, tokens, 12, requires_grad=True)
    learned = [weights, x, layer.lora_moe_A["default"], layer.lora_moe_B["default"]]
    expected = torch.autograd.grad(plain(layer, x, weights[:, None]).sin().sum(), learned)
    state.current = {"default": Route.from_weights(weights)}
    found = torch.autograd.grad(layer(x).sin().sum(), learned)
    for name, got, wanted in zip(("weights", "x", "A", "B"), found, expected, strict=True):
        if name == "weights":  # those of inactive experts are not asked
            wanted = torch.where(weights == 0, 0, wanted)
        torch.testing.assert_close(got, wanted, msg=name)


def test_what_was_kept_goes_when_the_experts_change() -> None:
    layer, state = layer_of()
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    x = torch.randn(2, 1, 12)
    state.current = {"default": Route.from_weights(weights)}
    for matrices in (layer.lora_moe_A, layer.lora_moe_B):
        with torch.no_grad():
            layer(x)
            matrices["default"].mul_(3)
            torch.testing.assert_close(layer(x), plain(layer, x, weights))
    state.current = {"default": Route.from_weights(torch.tensor([[0.0, 0.0, 0.0, 1.0]]))}
    with torch.no_grad():
        torch.testing.assert_close(layer(x), plain(layer, x, torch.eye(4)[3]))


def test_flat_tokens_take_the_route_of_their_row() -> None:
    """Some models hand tokens [B T, D] to a layer."""
    layer, state = layer_of()
    weights = torch.tensor([[0.3, 0.0, 0.7, 0.0], [0.0, 0.6, 0.0, 0.4]])
    state.current = {"default": Route.from_weights(weights)}
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(layer(x.flatten(0, 1)), layer(x).flatten(0, 1))


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_a_token_gate_routes_each_token(top_k: int) -> None:
    layer, _ = layer_of(gate="token", top_k=top_k)
    x = torch.randn(2, 5, 12)
    gate = cast(Gate, layer.lora_moe_layer_gate["default"])
    chances = (x @ gate.weight.T).softmax(dim=-1)
    kept = torch.zeros_like(chances).scatter(-1, chances.topk(top_k).indices, 1.0)
    weights = chances * kept
    expected = plain(layer, x, weights / weights.sum(dim=-1, keepdim=True))
    torch.testing.assert_close(layer(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(x[:, :1]), expected[:, :1])


def test_a_gate_in_each_layer_reads_the_question(language_model: str) -> None:
    model = adapted(language_model, gate="layer")
    routes = model.base_model.routes_of_layers(QUESTIONS, MASK)
    assert len(routes) == 2 * 4
    embeddings = model.get_input_embeddings()(QUESTIONS)
    question = mean_of_question(embeddings, MASK.bool())
    for name, layer in model.base_model.layers("default").items():
        expected = layer.lora_moe_layer_gate["default"](question)
        assert torch.equal(routes[name].experts, expected.experts)
    assert len({tuple(route.experts.flatten().tolist()) for route in routes.values()}) > 1
    with pytest.raises(ValueError, match="no question has one route"):
        model.base_model.route(QUESTIONS, MASK)


@pytest.mark.parametrize("kind", GATES)
def test_a_batch_equals_its_members_and_learns_everywhere(language_model: str, kind: str) -> None:
    model, call = adapted(language_model, **GATES[kind]), CALLS.get(kind, ASKED)
    together = logits(model, **call)
    for row in range(2):
        one = slice(row, row + 1)
        alone = logits(model, IDS[one], **{name: value[one] for name, value in call.items()})
        torch.testing.assert_close(together[one], alone)
    model.train()
    model(input_ids=IDS, labels=IDS, **call).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            if "gate" in name:
                assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("kind", GATES)
def test_generation_takes_the_route_of_the_whole(language_model: str, kind: str) -> None:
    model, call = adapted(language_model, **GATES[kind]), CALLS.get(kind, ASKED)
    ones = torch.ones_like(IDS)
    said = model.generate(
        input_ids=IDS, attention_mask=ones, max_new_tokens=5, do_sample=False, **call
    )
    whole = logits(model, said[:, :-1], **call)[:, IDS.shape[1] - 1 :]
    assert torch.equal(whole.argmax(dim=-1), said[:, IDS.shape[1] :])


def test_each_task_has_its_expert(language_model: str) -> None:
    model = adapted(language_model, **GATES["task"])
    named = logits(model, task_names=["name", "ask"])
    eye = torch.eye(4)
    assert torch.equal(named, logits(model, routing_weights=eye[[2, 0]]))
    with pytest.raises(ValueError, match=r"holds 'sing', expected ask, tell, name, count"):
        logits(model, task_names=["sing", "ask"])


def test_constant_weights() -> None:
    fixed = ConstantGate(LoraMoeConfig(**GATES["fixed"]))()
    assert fixed.dense(2).tolist() == [[0.5, -0.25]]
    learned = ConstantGate(LoraMoeConfig(**GATES["learned"]))
    with torch.no_grad():
        cast(Tensor, learned.weight)[:] = torch.tensor([math.log(3.0), 0.0])
    torch.testing.assert_close(learned().dense(2), torch.tensor([[0.75, 0.25]]))


def test_a_route_of_weights_keeps_negative_ones() -> None:
    weights = torch.tensor([[0.5, 0.0, -2.0, 0.0]])
    assert torch.equal(Route.from_weights(weights).dense(4), weights)


def test_noise_is_for_training_alone() -> None:
    torch.manual_seed(0)
    gate, questions = Gate(8, LoraMoeConfig(gate_noise=1.0)), torch.randn(50, 8)
    noisy, again = gate(questions), gate(questions)
    assert not torch.equal(noisy.weights, again.weights)
    gate.eval()
    assert torch.equal(gate(questions).weights, gate(questions).weights)


def test_uneven_use_costs(language_model: str) -> None:
    assert float(unevenness(torch.full((4,), 3.0))) == 0
    assert float(unevenness(torch.tensor([4.0, 0.0, 0.0, 0.0]))) == pytest.approx(3.0)
    options = {"gate_noise": 0.5, "importance_loss": 0.1, "load_loss": 0.2}
    model = adapted(language_model, **options).train()
    torch.manual_seed(1)
    found = model(input_ids=IDS, labels=IDS, **ASKED)
    balance = model.base_model.balance_loss()
    assert balance is not None
    assert float(balance.detach()) > 0
    gate = cast(Any, model.base_model).lora_moe_gate["default"]
    assert float(torch.autograd.grad(balance, gate.weight, retain_graph=True)[0].abs().max()) > 0
    torch.manual_seed(1)
    gate.importance_loss = gate.load_loss = 0.0
    bare = model(input_ids=IDS, labels=IDS, **ASKED)
    torch.testing.assert_close(found.loss, bare.loss + balance)
    assert model.base_model.balance_loss() is None


def test_noise_is_as_strong_as_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    gate, questions = Gate(8, LoraMoeConfig(gate_noise=0.7, top_k=4)), torch.randn(5, 8)
    drawn = torch.randn(5, 4)
    monkeypatch.setattr(torch, "randn_like", lambda values: drawn)
    expected = (questions @ gate.weight.T + 0.7 * drawn).softmax(dim=-1)
    torch.testing.assert_close(gate(questions).dense(4), expected)


def test_each_loss_counts_by_its_weight() -> None:
    questions = torch.randn(6, 8)

    def balance(**losses: float) -> float:
        torch.manual_seed(0)
        gate = Gate(8, LoraMoeConfig(gate_noise=0.5, **losses))
        gate(questions)
        return float("nan") if gate.balance is None else float(gate.balance.detach())

    importance, load = balance(importance_loss=1.0), balance(load_loss=1.0)
    assert load > 0
    both = balance(importance_loss=0.1, load_loss=0.3)
    assert both == pytest.approx(0.1 * importance + 0.3 * load)
    assert math.isnan(balance())


def test_the_loss_of_several_gates_is_their_mean(language_model: str) -> None:
    model = adapted(language_model, gate="layer", importance_loss=1.0).train()
    model(input_ids=IDS, labels=IDS, **ASKED)
    each = [gate.balance for gate in cast(Any, model.base_model)._gates()]
    assert len(each) > 1
    torch.testing.assert_close(model.base_model.balance_loss(), sum(each) / len(each))


def test_dropout_is_of_training_alone(language_model: str) -> None:
    model = adapted(language_model, lora_dropout=0.5)
    quiet = logits(model, **ASKED)
    assert torch.equal(quiet, logits(adapted(language_model), **ASKED))
    model.train()
    loud = logits(model, **ASKED)
    assert not torch.equal(loud, logits(model, **ASKED))


def test_excluded_modules_are_left_alone(language_model: str) -> None:
    model = adapted(language_model, exclude_modules=["v_proj"])
    names = {name.rsplit(".", 1)[-1] for name in model.base_model.layers("default")}
    assert names == {"q_proj", "k_proj", "o_proj"}


def test_an_earlier_calls_balance_is_not_learned_again(language_model: str) -> None:
    model = adapted(language_model, importance_loss=0.1).train()
    model(input_ids=IDS, labels=IDS, **ASKED).loss.backward()
    model(input_ids=IDS, labels=IDS, routing_weights=torch.eye(4)[:2]).loss.backward()
    assert model.base_model.balance_loss() is None


def test_the_chance_to_be_chosen_is_that_of_new_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.tensor([0.5, 0.1, -0.2, 0.3])
    noisy = clean + 0.7 * torch.randn(4, generator=generator)
    found = chosen_chances(clean[None], noisy[None], 2, 0.7)[0]
    draws = 20_000
    for expert in range(4):
        tried = noisy.expand(draws, 4).clone()
        tried[:, expert] = clean[expert] + 0.7 * torch.randn(draws, generator=generator)
        chosen = (tried.topk(2).indices == expert).any(dim=1).float().mean()
        assert float(found[expert]) == pytest.approx(float(chosen), abs=0.02)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"gate": "task"}, "tasks is None, expected a list with gate 'task' alone"),
        ({"tasks": ["a"]}, r"tasks is \['a'\], expected a list with gate 'task' alone"),
        ({"gate": "task", "tasks": ["a"]}, "tasks has 1 entries, expected 4"),
        ({"gate": "task", "tasks": ["a", "a", "b", "c"]}, "expected different names"),
        ({"gate": "fixed"}, "expert_weights is None, expected a list with gate 'fixed' alone"),
        (
            {"gate": "fixed", "num_experts": 2, "expert_weights": [1.0, math.nan]},
            "expected finite numbers",
        ),
        ({"gate": "learned", "gate_noise": 1.0}, "gate_noise is 1.0, expected 0 with gate"),
        ({"gate_noise": -1.0}, "gate_noise is -1.0, expected at least 0"),
        ({"load_loss": 1.0}, "load_loss is 1.0, expected 0 without gate_noise"),
        ({"rank_pattern": {"q_proj": 0}}, r"rank_pattern\[q_proj\] is 0, expected at least 1"),
    ],
)
def test_wrong_gates_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraMoeConfig(**options)


def test_a_gate_that_is_not_there_is_named() -> None:
    config = LoraMoeConfig()
    config.gate = "none"  # pyright: ignore[reportAttributeAccessIssue] # as a stored file may have it
    with pytest.raises(ValueError, match="gate is 'none', expected one of instance, layer"):
        config.__post_init__()
