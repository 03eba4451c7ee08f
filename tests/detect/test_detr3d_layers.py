"""The parts of 3DETR beside plain versions of them."""

import math

import pytest
import torch
from detr3d_fake import close, cloud, plain_farthest
from torch import Tensor, nn
from torch.nn import functional

from o2s.detect.detr3d_layers import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    FourierEmbedding,
    MaskedEncoder,
    SetAbstraction,
    sees,
)
from o2s.ops.neighbours import ball_query
from o2s.ops.sampling import farthest_point_sample


def plain_ball(centre: Tensor, points: Tensor, radius: float, count: int) -> list[int]:
    inside = [i for i, p in enumerate(points) if float(((p - centre) ** 2).sum()) < radius**2]
    inside = inside[:count] or [0]
    return inside + [inside[0]] * (count - len(inside))


def test_balls_hold_the_first_points_by_index() -> None:
    points = (cloud(0, 60) * 4).round() / 4  # many at exactly the radius, which are outside
    found = ball_query(points[:, :9], points, 0.5, 12).indices[0]
    assert found.tolist() == [plain_ball(p, points[0], 0.5, 12) for p in points[0, :9]]
    assert any(len(set(row)) < 12 for row in found.tolist())
    assert any(len(set(row)) == 12 for row in found.tolist())


def test_points_near_the_origin_are_never_chosen_but_the_first() -> None:
    points = cloud(1, 40) - 0.5
    points[0, 10:30] *= 0.04
    near = set((points[0].square().sum(dim=1) <= 1e-3).nonzero()[:, 0].tolist())
    found = farthest_point_sample(points, 20, skip_near_origin=True)[0].tolist()
    assert found == plain_farthest(points[0], 20)
    assert len(near) > 10
    assert not near & set(found)
    points[0, 0] = 0
    assert farthest_point_sample(points, 20, skip_near_origin=True)[0, 0] == 0


@torch.no_grad()
@pytest.mark.parametrize("width", [0, 5])
def test_set_abstraction_is_that_of_plain_loops(width: int) -> None:
    torch.manual_seed(0)
    module = SetAbstraction(6, 0.3, 8, [3 + width, 4, 7]).eval()
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm1d)]
    for norm in norms:
        nn.init.normal_(norm.running_mean)
        nn.init.normal_(norm.bias)
    points, features = cloud(2, 50) - 0.5, torch.randn(1, 50, width)
    places, found = module(points, features if width else None)
    chosen = plain_farthest(points[0], 6)
    assert torch.equal(places[0], points[0, chosen])
    for centre, feature in zip(places[0], found[0], strict=True):
        ball = plain_ball(centre, points[0], 0.3, 8)
        x = torch.cat([(points[0, ball] - centre) / 0.3, features[0, ball]], dim=1)
        x = x.T[None, ..., None]
        for layer, norm in zip(module.mlp_module.values(), norms, strict=True):
            mean, variance = norm.running_mean, norm.running_var
            x = functional.batch_norm(layer.conv(x), mean, variance, norm.weight, norm.bias).relu()
        assert close(x[0, :, :, 0].amax(dim=1), feature)


def public_attention(attention: Attention, masked: Tensor | None, *inputs: Tensor) -> Tensor:
    module = nn.MultiheadAttention(attention.out_proj.in_features, attention.heads)
    module.load_state_dict(attention.state_dict())
    query, key, value = (x.transpose(0, 1) for x in inputs)
    return module(query, key, value, attn_mask=masked)[0].transpose(0, 1)


@torch.no_grad()
def test_encoder_layers_and_masks_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    layer, places, x = EncoderLayer(8, 2, 6, 0.3).eval(), cloud(3, 20, 2.0), torch.randn(1, 20, 8)
    nn.init.normal_(layer.self_attn.in_proj_weight)
    far = torch.tensor([[[float((p - q).norm()) >= 0.64 for q in places[0]] for p in places[0]]])
    assert torch.equal(sees(places, 0.64), ~far)
    assert far.any()
    assert (~far).sum() > 20
    for mask, hidden in ((~far, far), (None, None)):
        y = layer.norm1(x)
        hidden = None if hidden is None else hidden.expand(2, -1, -1)  # one for each head
        expected = x + public_attention(layer.self_attn, hidden, y, y, y)
        expected = expected + layer.linear2(layer.linear1(layer.norm2(expected)).relu())
        assert close(layer(x, mask), expected)
    assert not close(layer(x, ~far), layer(x, None))


@torch.no_grad()
def test_the_masked_encoder_sees_farther_from_layer_to_layer_and_keeps_some() -> None:
    torch.manual_seed(0)
    encoder, places, x = MaskedEncoder(9, 8, 2, 6, 0.3).eval(), cloud(4, 20), torch.randn(1, 20, 8)
    expected = encoder.layers[0](x, sees(places, 0.16))
    kept, expected = encoder.interim_downsampling(places, expected)
    expected = encoder.layers[1](expected, sees(kept, 0.64))
    expected = encoder.layers[2](expected, sees(kept, 1.44))
    found = encoder(places, x)
    assert torch.equal(found[0], kept)
    assert torch.equal(kept[0], places[0, plain_farthest(places[0], 9)])
    assert close(found[1], expected)


@torch.no_grad()
def test_decoder_layers_are_the_plain_ones() -> None:
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 6, 0.3).eval()
    nn.init.normal_(layer.self_attn.in_proj_weight)
    nn.init.normal_(layer.multihead_attn.in_proj_weight)
    (x, queries), (tokens, places) = torch.randn(2, 1, 5, 8), torch.randn(2, 1, 20, 8)
    y = layer.norm1(x)
    expected = x + public_attention(layer.self_attn, None, y + queries, y + queries, y)
    y = layer.norm2(expected)
    seen = tokens + places
    expected = expected + public_attention(layer.multihead_attn, None, y + queries, seen, tokens)
    expected = expected + layer.linear2(layer.linear1(layer.norm3(expected)).relu())
    assert close(layer(x, tokens, places, queries), expected)


def test_the_embedding_says_where_in_its_cloud_a_point_is() -> None:
    embedding, points = FourierEmbedding(6), cloud(5, 4, 3.0) - 1
    low, high = points.amin(dim=1), points.amax(dim=1)
    found = embedding(points, low, high)
    placed = (points[0, 2] - low[0]) / (high[0] - low[0])
    angles = [2 * math.pi * float(placed @ embedding.gauss_B[:, i]) for i in range(3)]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    assert found[0, 2].tolist() == pytest.approx(expected, abs=1e-4)
    assert close(embedding(points * 2 + 5, low * 2 + 5, high * 2 + 5), found, 1e-4)
