"""The laws of Point-BERT, and its forward pass beside a plain one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from o2s import point_bert
from o2s.datasets.object_files import z_up
from o2s.point_bert import SIZES, Block, PointBert, PointBertConfig

TINY = PointBertConfig(
    channels=6, width=32, depth=3, heads=4, groups=12, neighbours=6, group_width=24, embedding=16
)
Shapes = dict[str, tuple[int, ...]]


def manifest(config: PointBertConfig) -> Shapes:
    """Keys and shapes of a public checkpoint's point encoder, and of its projection."""
    width, group = config.width, config.group_width
    with_bias: Shapes = {
        "encoder.first_conv.0": (group // 2, config.channels, 1),
        "encoder.first_conv.1": (group // 2,),
        "encoder.first_conv.3": (group, group // 2, 1),
        "encoder.second_conv.0": (2 * group, 2 * group, 1),
        "encoder.second_conv.1": (2 * group,),
        "encoder.second_conv.3": (group, 2 * group, 1),
        "reduce_dim": (width, config.group_width),
        "pos_embed.0": (128, 3),
        "pos_embed.2": (width, 128),
        "norm": (width,),
    }
    shapes: Shapes = {"pc_projection": (2 * width, config.embedding)}
    shapes |= {"cls_token": (1, 1, width), "cls_pos": (1, 1, width)}
    for block in (f"blocks.blocks.{i}" for i in range(config.depth)):
        with_bias |= {f"{block}.norm1": (width,), f"{block}.norm2": (width,)}
        with_bias[f"{block}.attn.proj"] = (width, width)
        with_bias[f"{block}.mlp.fc1"] = (4 * width, width)
        with_bias[f"{block}.mlp.fc2"] = (width, 4 * width)
        shapes[f"{block}.attn.qkv.weight"] = (3 * width, width)
    for name, shape in with_bias.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = {"encoder.first_conv.1": (group // 2,), "encoder.second_conv.1": (2 * group,)}
    for name, shape in norms.items():
        shapes |= {f"{name}.running_mean": shape, f"{name}.running_var": shape}
        shapes[f"{name}.num_batches_tracked"] = ()
    return shapes


def random_state(shapes: Shapes) -> dict[str, Tensor]:
    """Every entry random, the statistics of batch normalisation too; activations of order 1."""
    generator, state = torch.Generator().manual_seed(0), {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith("running_var"):
            state[key] = 0.5 + torch.rand(shape, generator=generator)
        elif len(shape) == 1:
            state[key] = 0.3 * noise + key.endswith("weight")
        else:
            state[key] = noise * math.prod(shape[1:]) ** -0.5
    return state


def network(config: PointBertConfig = TINY, **changes: float) -> PointBert:
    model = PointBert(replace(config, **changes)).requires_grad_(False)
    model.load_state_dict(random_state(manifest(model.config)))
    return model.eval()


def regions(count: int = 3, points: int = 40, channels: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    xyz = torch.randn(count, points, 3, generator=generator)
    xyz = xyz / xyz.norm(dim=-1).amax(dim=1)[:, None, None]
    return torch.cat([xyz, torch.rand(count, points, channels - 3, generator=generator)], dim=-1)


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-5)


def reference(
    state: dict[str, Tensor], points: Tensor, config: PointBertConfig, training: bool = False
) -> Tensor:
    """The published forward pass, a group and a head at a time; training updates `state`."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0)

    def convolution(name: str, x: Tensor) -> Tensor:
        return functional.conv1d(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def batch_norm(name: str, x: Tensor) -> Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        affine = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.batch_norm(x, mean, variance, *affine, training=training)

    def layer_norm(name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, False, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name: str, x: Tensor) -> Tensor:
        parts = linear(f"{name}.qkv", x).unflatten(1, (3, config.heads, -1)).unbind(dim=2)
        triples = (part.unbind(dim=1) for part in parts)
        heads = [(q @ k.T / q.shape[1] ** 0.5).softmax(dim=-1) @ v for q, k, v in triples]
        return linear(f"{name}.proj", torch.cat(heads, dim=-1))

    groups, centres = [], []
    for cloud in points:
        xyz, chosen = cloud[:, :3], [0]
        for _ in range(config.groups):
            centres.append(xyz[chosen[-1]])
            nearest = (xyz - centres[-1]).square().sum(dim=1).argsort(stable=True)
            members = cloud[nearest[: config.neighbours]]
            groups.append(torch.cat([members[:, :3] - centres[-1], members[:, 3:]], dim=1))
            distance = (xyz[:, None] - xyz[chosen]).square().sum(dim=2).amin(dim=1)
            if config.skip_near_origin:
                distance[xyz.square().sum(dim=1) <= 1e-3] = -1
            chosen.append(int(distance.argmax()))

    local = convolution("encoder.first_conv.0", torch.stack(groups).mT)
    local = convolution("encoder.first_conv.3", batch_norm("encoder.first_conv.1", local).relu())
    overall = local.amax(dim=2, keepdim=True).expand_as(local)
    local = convolution("encoder.second_conv.0", torch.cat([overall, local], dim=1))
    local = convolution("encoder.second_conv.3", batch_norm("encoder.second_conv.1", local).relu())
    tokens = linear("reduce_dim", local.amax(dim=2)).split(config.groups)
    hidden = functional.gelu(linear("pos_embed.0", torch.stack(centres)))
    positions = linear("pos_embed.2", hidden).split(config.groups)
    features = []
    for token, position in zip(tokens, positions, strict=True):
        x = torch.cat([state["cls_token"][0], token])
        position = torch.cat([state["cls_pos"][0], position])
        for block in (f"blocks.blocks.{i}" for i in range(config.depth)):
            x = x + position
            x = x + attention(f"{block}.attn", layer_norm(f"{block}.norm1", x))
            hidden = linear(f"{block}.mlp.fc1", layer_norm(f"{block}.norm2", x))
            x = x + linear(f"{block}.mlp.fc2", functional.gelu(hidden))
        x = layer_norm("norm", x)
        features.append(torch.cat([x[0], x[1:].amax(dim=0)]))
    return torch.stack(features)


@pytest.mark.parametrize(
    "size, public, entries, parameters",
    [
        ("ulip1", PointBertConfig(3, 384, 12, 6, 512, 32, 256, 512), 160, 21_858_816),
        ("ulip2", PointBertConfig(6, 384, 18, 6, 512, 32, 256, 1280), 226, 32_499_072),
    ],
)
def test_keys_and_shapes_are_the_public_ones(
    size: str, public: PointBertConfig, entries: int, parameters: int
) -> None:
    model = PointBert(SIZES[size])
    assert model.config == public
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes == manifest(public)
    assert len(shapes) == entries + 1  # the projection
    assert sum(p.numel() for p in model.parameters()) - model.pc_projection.numel() == parameters
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("skip", [False, True])
def test_features_are_those_of_the_plain_forward_pass(channels: int, skip: bool) -> None:
    model, points = network(channels=channels, skip_near_origin=skip), regions(channels=channels)
    points[:, 2:34, :3] *= 0.03  # fewer points than groups are left away from the origin
    features = model(points)
    assert close(features, reference(model.state_dict(), points, model.config))
    assert not close(features, network(model.config, skip_near_origin=not skip)(points))


@pytest.mark.parametrize("at_once", [1, 9, 20])
def test_groups_that_are_encoded_in_portions_are_those_of_all_at_once(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, points = network(), regions(count=2)
    features = model(points)
    calls: list[int] = []
    monkeypatch.setattr("o2s.point_bert._POINTS_AT_ONCE", at_once)
    monkeypatch.setattr("o2s.point_bert._largest", lambda x: calls.append(len(x)) or x.amax(dim=1))
    assert close(model(points), features)
    assert max(calls) == max(1, at_once // model.config.neighbours)


def test_normalisation_that_several_processes_share_is_the_same_in_evaluation() -> None:
    shared = nn.SyncBatchNorm.convert_sync_batchnorm(network()).eval()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in shared.modules())
    assert close(shared(regions()), network()(regions()))


def test_training_takes_and_keeps_the_same_statistics_as_the_plain_forward_pass() -> None:
    model, points = network(drop_path=0.0).train(), regions()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert close(model(points), reference(state, points, model.config, training=True))
    assert all(close(model.state_dict()[key], state[key]) for key in state if "running" in key)


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_fewer_points_than_neighbours_or_groups_are_enough(count: int) -> None:
    """The maximum over a group is blind to the repeats that fill it up."""
    model, points = network(), regions(points=count)
    assert close(model(points), reference(model.state_dict(), points, TINY))


def test_of_the_order_of_points_only_the_first_one_matters() -> None:
    model, points = network(), regions()
    order = 1 + torch.randperm(39, generator=torch.Generator().manual_seed(0))
    features = model(points)
    assert close(model(torch.cat([points[:, :1], points[:, order]], dim=1)), features)
    assert not close(model(points.flip(1)), features)


def test_a_batch_equals_its_members_one_by_one() -> None:
    model, points = network(), regions(count=4)
    assert close(model(points), torch.cat([model(region[None]) for region in points]))


def test_every_point_twice_is_every_point_once_with_half_the_neighbours() -> None:
    points, wide = regions(), network(neighbours=2 * TINY.neighbours)
    assert close(wide(torch.cat([points, points], dim=1)), network()(points))


def test_no_regions_give_no_features() -> None:
    assert network()(torch.zeros(0, 40, 6)).shape == (0, TINY.feature_width) == (0, 64)
    assert network().embed(torch.zeros(0, 40, 6)).shape == (0, 16)


@pytest.mark.parametrize("takes, given", [(3, 6), (6, 3)])
def test_other_channels_are_an_error_that_names_both(takes: int, given: int) -> None:
    with pytest.raises(ValueError, match=f"have {given} channels, the model takes {takes}"):
        network(channels=takes)(regions(channels=given))


def test_embeddings_are_projected_features_of_unit_length() -> None:
    model, points = network(), regions()
    embeddings, projected = model.embed(points), model(points) @ model.pc_projection
    assert close(embeddings.norm(dim=1), torch.ones(3))
    assert close(embeddings * projected.norm(dim=1, keepdim=True), projected)


def test_gradients_are_the_plain_ones_and_reach_every_parameter_and_the_points() -> None:
    model, points = network(drop_path=0.0).requires_grad_().train(), regions().requires_grad_()
    features = reference(model.state_dict(keep_vars=True), points, model.config, training=True)
    expected = functional.normalize(features @ model.pc_projection, dim=-1)
    inputs = {**dict(model.named_parameters()), "points": points}
    plain = torch.autograd.grad(expected[:, 0].sum(), list(inputs.values()))
    ours = torch.autograd.grad(model.embed(points)[:, 0].sum(), list(inputs.values()))
    # A constant that is added before batch normalisation changes nothing behind it.
    idle = {f"encoder.{name}.bias" for name in ("first_conv.0", "first_conv.3", "second_conv.0")}
    for name, a, b in zip(inputs, ours, plain, strict=True):
        assert close(a, b), name
        assert (a.abs().max() > 1e-6) == (name not in idle), name


def test_drop_path_grows_with_depth() -> None:
    blocks = network(drop_path=0.8).blocks.blocks
    assert [block.drop_path for block in blocks] == pytest.approx([0, 0.4, 0.8])


@torch.no_grad()
def test_drop_path_drops_a_branch_of_a_whole_region_or_scales_it_up() -> None:
    torch.manual_seed(0)
    block, x = Block(width=8, heads=2, drop_path=0.75), torch.randn(1, 5, 8).expand(400, -1, -1)
    for parameter in block.mlp.fc2.parameters():
        parameter.zero_()  # attention is the only branch
    branch, dropped = block.eval()(x) - x, block.train()(x) - x
    kept = dropped.abs().amax(dim=(1, 2)) > 0
    assert close(dropped[kept], 4 * branch[kept])
    assert 0.18 < kept.float().mean() < 0.32


SMALL = PointBertConfig(3, 128, 2, 2, 512, 32, 24, 40)
SMALL_COLORED = PointBertConfig(6, 64, 3, 1, 512, 32, 24, 40)
ENCODER = "module.point_encoder."
TOWERS = """visual.cls_token visual.blocks.0.attn.qkv.weight transformer.resblocks.0.ln_1.weight
    token_embedding.weight positional_embedding ln_final.bias image_projection text_projection
    open_clip_model.ln_final.weight logit_scale"""


def checkpoint(config: PointBertConfig, prefix: str = "module.") -> dict[str, Tensor]:
    """A small checkpoint under the names that ULIP saves, those of other towers among them."""
    state = {f"point_encoder.{key}": v for key, v in random_state(manifest(config)).items()}
    state["pc_projection"] = state.pop("point_encoder.pc_projection")
    state |= {key: torch.zeros(2) for key in TOWERS.split()}
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["module.", ""])
@pytest.mark.parametrize("config", [SMALL, SMALL_COLORED], ids=["xyz", "colored"])
def test_a_public_checkpoint_gives_weights_and_sizes(config: PointBertConfig, prefix: str) -> None:
    model = PointBert.from_ulip(checkpoint(config, prefix))
    assert model.config == config
    expected = random_state(manifest(config))
    assert model.state_dict().keys() == expected.keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in expected.items())


def test_a_share_of_the_groups_may_be_looked_at() -> None:
    torch.manual_seed(0)
    model, points = PointBert(SMALL).eval(), torch.rand(3, 40, 3)
    groups = torch.arange(3 * 5 * 2 * 4.0).view(3, 5, 2, 4)
    centres = groups[:, :, 0, :3]
    chosen, places = point_bert._drawn(groups, centres, 3)
    assert chosen.shape == (3, 3, 2, 4)
    for region in range(3):
        rows = [(centres[region] == place).all(dim=1).nonzero().item() for place in places[region]]
        assert len(set(rows)) == 3
        assert torch.equal(chosen[region], groups[region][rows])
    few = torch.stack([model(points, share=0.5) for _ in range(2)])
    assert not torch.equal(few[0], few[1])
    torch.testing.assert_close(model(points, share=1.0), model(points))
    torch.testing.assert_close(model(points, share=1e-9).isfinite().all(), torch.tensor(True))


def test_regions_are_turned_for_weights_that_know_y_as_up() -> None:
    state = checkpoint(SMALL_COLORED)
    published, ours = PointBert.from_ulip(state), PointBert.from_ulip(state, up="y")
    points = torch.rand(2, 40, 6)
    upright = torch.cat([torch.tensor(z_up(p[:, :3].numpy())) for p in points]).view(2, 40, 3)
    upright = torch.cat([upright, points[..., 3:]], dim=-1)
    torch.testing.assert_close(ours.eval()(upright), published.eval()(points))


@pytest.mark.parametrize("key", ["norm.bias", "blocks.blocks.0.attn.qkv.weight", "cls_token"])
def test_a_missing_key_is_an_error_that_names_it(key: str) -> None:
    state = {name: value for name, value in checkpoint(SMALL).items() if name != ENCODER + key}
    with pytest.raises(ValueError, match=rf"missing \['{key}'\]|'{key}' is missing"):
        PointBert.from_ulip(state)


@pytest.mark.parametrize(
    "key, message",
    [
        (f"{ENCODER}head.weight", r"left over \['head.weight'\]"),
        ("module.adapter.weight", r"left over \['module.adapter.weight'\]"),
        (f"{ENCODER}norm.bias", r"norm.bias is \(7, 5\), expected \(128,\)"),
    ],
)
def test_a_left_over_key_or_a_wrong_shape_is_an_error_that_names_it(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PointBert.from_ulip({**checkpoint(SMALL), key: torch.zeros(7, 5)})
