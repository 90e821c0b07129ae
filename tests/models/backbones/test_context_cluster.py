import math
import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mmseg_m2f.models.backbones.context_cluster import (
    ARCHS,
    ContextCluster,
    ContextClusterBlock,
    CoordinateConv,
    PointClustering,
    cluster,
)
from mmseg_m2f.models.feature_spec import probe_feature_spec
from mmseg_m2f.structures import FeatureSpec

SMALL = dict(depths=(1, 1, 2, 1), widths=(8, 12, 16, 20), heads=(2, 2, 1, 3), head_width=4, mlp_ratios=(2, 2, 1, 1))
ONE, ZERO = torch.ones(1), torch.zeros(1)


def regions(count: int = 6, width: int = 5, size: tuple[int, int] = (4, 6)) -> list[torch.Tensor]:
    return [torch.randn(count, width, *size) for _ in range(2)]


def clustered_one_by_one(points, values, alpha, beta, center_grid):
    """The published formulas with a loop over points, for one region c h w."""
    _, height, width = points.shape
    bins = [
        (slice(i * height // center_grid, -(-(i + 1) * height // center_grid)),
         slice(j * width // center_grid, -(-(j + 1) * width // center_grid)))
        for i in range(center_grid) for j in range(center_grid)
    ]  # fmt: skip
    centers = [points[:, rows, columns].mean((1, 2)) for rows, columns in bins]
    center_values = [values[:, rows, columns].mean((1, 2)) for rows, columns in bins]
    places = [(y, x) for y in range(height) for x in range(width)]
    found = {}
    for y, x in places:
        similarities = [
            1 / (1 + math.exp(-beta - alpha * float(F.cosine_similarity(center, points[:, y, x], dim=0))))
            for center in centers
        ]
        found[y, x] = max((s, i) for i, s in enumerate(similarities))
    answers = torch.zeros_like(values)
    for i, start in enumerate(center_values):
        members = [(s, y, x) for (y, x), (s, choice) in found.items() if choice == i]
        mean = (start + sum(s * values[:, y, x] for s, y, x in members)) / (1 + sum(s for s, _, _ in members))
        for s, y, x in members:
            answers[:, y, x] = s * mean
    return answers


@pytest.mark.parametrize("center_grid", [1, 2, 3])
def test_cluster__equals_a_loop_over_points(center_grid):
    points, values = regions(count=3)
    alpha, beta = torch.tensor([1.7]), torch.tensor([-0.3])
    found = cluster(points, values, alpha, beta, center_grid=center_grid)
    for index in range(3):
        expected = clustered_one_by_one(points[index], values[index], 1.7, -0.3, center_grid)
        torch.testing.assert_close(found[index], expected, atol=1e-5, rtol=1e-4)


def test_cluster__each_point_gets_one_similarity_of_its_range():
    # All values 1: every centre's mean is 1, so an answer is the one similarity that the point kept.
    points, _ = regions()
    kept = cluster(points, torch.ones_like(points), ONE, ZERO, center_grid=2)
    lowest, highest = torch.sigmoid(torch.tensor([-1.0, 1.0]))
    assert lowest < kept.min()
    assert kept.max() <= highest + 1e-6
    cosine = F.cosine_similarity(F.adaptive_avg_pool2d(points, 2).flatten(2)[..., None], points.flatten(2)[:, :, None])
    torch.testing.assert_close(kept[:, 0].flatten(1), cosine.amax(1).sigmoid())


def test_cluster__gathered_values_are_a_convex_combination():
    points, values = regions()
    answers = cluster(points, values, ONE, ZERO, center_grid=2)
    kept = cluster(points, torch.ones_like(values), ONE, ZERO, center_grid=2)  # the similarities
    assert ((answers / kept).abs().amax((2, 3)) <= values.abs().amax((2, 3)) + 1e-6).all()
    torch.testing.assert_close(cluster(points, values + 1, ONE, ZERO, center_grid=2) - answers, kept)


def test_cluster__order_of_points_inside_a_bin_does_not_matter():
    points, values = regions(size=(4, 6))
    order = torch.arange(24).view(4, 6)
    order[:2, :3] = order[:2, :3].flatten()[[4, 0, 5, 2, 1, 3]].view(2, 3)
    across = torch.randperm(24).view(4, 6)

    def error(order, center_grid):
        shuffled = [x.flatten(2)[..., order.flatten()].view_as(x) for x in (points, values)]
        expected = cluster(points, values, ONE, ZERO, center_grid=center_grid).flatten(2)[..., order.flatten()]
        return (cluster(*shuffled, ONE, ZERO, center_grid=center_grid).flatten(2) - expected).abs().max()

    assert error(order, 2) < 1e-6
    assert error(across, 2) > 0.05
    assert error(across, 1) < 1e-6


def test_cluster__without_alpha_all_points_join_one_centre():
    points, values = regions()
    answers = cluster(points, values, ZERO, torch.tensor([0.4]), center_grid=2)
    similarity = torch.tensor(0.4).sigmoid()  # of every point to every centre; among equals the first centre wins
    start = values[:, :, :2, :3].mean((2, 3))
    gathered = (start + similarity * values.sum((2, 3))) / (1 + 24 * similarity)
    torch.testing.assert_close(answers, (similarity * gathered)[..., None, None].expand_as(answers))


def test_cluster__gradient_reaches_similarities_not_the_choice():
    points, values = regions()
    alpha, beta = ONE.clone().requires_grad_(), ZERO.clone().requires_grad_()
    cluster(points, values, alpha, beta, center_grid=2).square().sum().backward()
    assert alpha.grad.abs() > 1e-3
    assert beta.grad.abs() > 1e-3
    # A choice that had a gradient would change the answers' derivative: here it is that of the kept similarities.
    small = 1e-3
    sums = [
        cluster(points, values, ONE, ZERO + shift, center_grid=2).double().square().sum() for shift in (-small, small)
    ]
    torch.testing.assert_close(beta.grad.double()[0], (sums[1] - sums[0]) / (2 * small), rtol=1e-3, atol=1e-3)


def test_cluster__half_precision_has_no_nan_for_zero_vectors():
    points, values = regions()
    points[:, :, 0] = 0
    with torch.autocast("cpu", torch.float16):
        answers = cluster(points.half(), values.half(), ONE, ZERO, center_grid=2)
    assert answers.isfinite().all()
    expected = cluster(points.half().float(), values, ONE, ZERO, center_grid=2)
    assert (answers.float() - expected).abs().median() < 0.01


def test_point_clustering__regions_know_nothing_of_each_other():
    operator = PointClustering(6, heads=2, head_width=4, center_grid=2, fold=2)
    x = torch.randn(2, 6, 8, 12)
    changed = x.clone()
    changed[:, :, :4, 6:] += 1
    same = operator(x) == operator(changed)
    assert same[:, :, 4:].all()
    assert same[:, :, :, :6].all()
    assert not same[:, :, :4, 6:].all(1).any()


def test_point_clustering__regions_and_heads_are_put_back_in_place():
    whole = PointClustering(6, heads=2, head_width=4, fold=2)
    alone = PointClustering(6, heads=2, head_width=4, fold=1)
    alone.load_state_dict(whole.state_dict())
    x = torch.randn(2, 6, 8, 12)
    quarters = [[alone(x[:, :, i : i + 4, j : j + 6]) for j in (0, 6)] for i in (0, 4)]
    torch.testing.assert_close(whole(x), torch.cat([torch.cat(row, 3) for row in quarters], 2))
    for part in (whole.f, whole.v):
        part.weight.data[:4], part.bias.data[:4] = 0, 0  # the second head alone
    one = PointClustering(6, heads=1, head_width=4, fold=2)
    weights = whole.state_dict()
    cut = {name: value[4:] if name[:2] in ("f.", "v.") else value for name, value in weights.items()}
    one.load_state_dict(cut | {"proj.weight": weights["proj.weight"][:, 4:]})
    torch.testing.assert_close(whole(x), one(x))


@pytest.mark.parametrize("size", [(5, 7), (3, 8), (9, 4)])
def test_point_clustering__padding_joins_and_counts_for_nothing(size):
    operator = PointClustering(6, heads=2, head_width=4, center_grid=1, fold=4)
    x = torch.randn(1, 6, *size)
    found = operator(x)
    alone = PointClustering(6, heads=2, head_width=4, center_grid=1, fold=1)
    alone.load_state_dict(operator.state_dict())
    side = [-(-length // 4) for length in size]  # of a region; the last ones hold what is left
    for top in range(0, size[0], side[0]):
        for left in range(0, size[1], side[1]):
            part = (..., slice(top, top + side[0]), slice(left, left + side[1]))
            torch.testing.assert_close(found[part], alone(x[part]))


def test_point_clustering__nobody_joins_a_bin_of_padding():
    # 3 columns in regions 2 wide: of the right regions' four centres, two lie on padding.
    operator = PointClustering(6, heads=1, head_width=4, center_grid=2, fold=2)
    nn.init.constant_(operator.v.weight, 0)
    nn.init.constant_(operator.v.bias, 1)
    nn.init.constant_(operator.proj.weight, 0.25)
    nn.init.constant_(operator.proj.bias, 0)
    x = torch.randn(1, 6, 4, 3)
    column = operator.f(x)[0, :, :, 2]  # each point of it is the only one of its bin
    similar = F.cosine_similarity(column.view(4, 2, 2, 1), column.view(4, 2, 1, 2), dim=0).amax(1).sigmoid()
    torch.testing.assert_close(operator(x)[0, 0, :, 2], similar.flatten())


def test_coordinate_conv__adds_row_and_column():
    conv = CoordinateConv(1, 2, kernel_size=1, stride=1)
    assert conv.in_channels == 1
    conv.weight.data = torch.tensor([[0.0, 1, 0], [0, 0, 1]])[..., None, None]
    conv.bias.data.zero_()
    rows, columns = conv(torch.randn(1, 1, 3, 5))[0]
    assert torch.equal(rows, torch.tensor([-0.5, 0, 0.5])[:, None].expand(3, 5))
    assert torch.equal(columns, torch.tensor([-0.5, -0.25, 0, 0.25, 0.5]).expand(3, 5))


def test_context_cluster_block__starts_as_the_identity_and_follows_its_equations():
    block = ContextClusterBlock(6, heads=2, head_width=4, layer_scale_init=0.0)
    x = torch.randn(2, 6, 4, 4)
    assert torch.equal(block(x), x)
    nn.init.constant_(block.layer_scale_1, 0.5)
    nn.init.constant_(block.layer_scale_2, 2.0)
    normed = (x - x.mean((1, 2, 3), keepdim=True)) / (x.var((1, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
    middle = x + 0.5 * block.token_mixer(normed)
    normed = F.group_norm(middle, 1)
    hidden = F.gelu(torch.einsum("kc,bchw->bkhw", block.mlp.fc1.weight, normed))
    torch.testing.assert_close(block(x), middle + 2 * torch.einsum("ck,bkhw->bchw", block.mlp.fc2.weight, hidden))


def test_context_cluster__published_initial_weights():
    backbone = ContextCluster("tiny")
    state = backbone.state_dict()
    scales = [value for name, value in state.items() if "layer_scale" in name]
    assert len(scales) == 2 * (3 + 4 + 5 + 2)
    torch.testing.assert_close(torch.cat(scales), torch.full((sum(map(len, scales)),), 1e-5))
    assert {value.item() for name, value in state.items() if name.endswith("sim_alpha")} == {1.0}
    assert {value.item() for name, value in state.items() if name.endswith("sim_beta")} == {0.0}
    linears = [m for m in backbone.modules() if isinstance(m, nn.Linear)]
    assert linears
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert not linear.bias.any()


@pytest.mark.parametrize("arch", ["tiny", "tiny2", "tiny_plain", "small", "medium", "base64", "base96"])
def test_context_cluster__published_parameters(arch):
    with torch.device("meta"):
        count = sum(p.numel() for p in ContextCluster(arch).parameters())
    exact = dict(tiny=5_250_168, tiny2=5_250_168, tiny_plain=5_250_168, small=14_145_048, medium=28_778_544)
    if arch in exact:
        assert count == exact[arch]
    else:
        assert count == pytest.approx(dict(base64=53.72e6, base96=52.29e6)[arch], rel=1e-4)
    # The published classifiers have one norm and a linear layer in place of the four norms of the maps.
    widths = ARCHS[arch].widths
    classifier = count - 2 * sum(widths) + 2 * widths[-1] + 1000 * (widths[-1] + 1)
    published = dict(tiny=5_570_584, small=14_657_024, medium=29_290_520, base64=54.23e6, base96=53.05e6)
    if arch in published:
        assert classifier == pytest.approx(published[arch], rel=0 if arch in exact else 1e-3)


@pytest.mark.parametrize(
    ("arch", "size", "expected"),
    [
        ("tiny", 224, 1.09e9),
        ("small", 224, 2.77e9),
        ("medium", 224, 5.88e9),
        ("tiny", 512, 5.68e9),
        ("small", 512, 14.46e9),
        ("medium", 512, 30.70e9),
    ],
)
def test_context_cluster__published_multiply_adds(arch, size, expected):
    by_operator = multiply_adds(arch, size, 2)
    assert sum(by_operator.values()) - by_operator["bmm"] == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("arch", "center_grid", "expected"),
    [
        *(("small", 2, 0.08e9), ("small", 5, 0.52e9), ("small", 7, 1.02e9)),
        *(("medium", 2, 0.25e9), ("medium", 5, 1.56e9), ("medium", 7, 3.06e9)),
    ],
)
def test_context_cluster__multiply_adds_of_clustering(arch, center_grid, expected):
    # Figures of two decimals.
    assert multiply_adds(arch, 512, center_grid)["bmm"] == pytest.approx(expected, abs=0.005e9)


def multiply_adds(arch: str, size: int, center_grid: int) -> dict[str, float]:
    backbone = ContextCluster(arch, center_grid=center_grid).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = backbone(torch.empty(1, 3, size, size))
    assert [x.shape[-1] for x in maps] == [size // 4, size // 8, size // 16, size // 32]
    return {str(operator).split(".")[-1]: count / 2 for operator, count in counter.get_flop_counts()["Global"].items()}


RELEASED = [
    r"patch_embed\.proj\.(weight|bias)",
    r"network\.[135]\.proj\.(weight|bias)",
    r"network\.[0246]\.\d\.norm[12]\.(weight|bias)",
    r"network\.[0246]\.\d\.token_mixer\.(f|v|proj)\.(weight|bias)",
    r"network\.[0246]\.\d\.token_mixer\.sim_(alpha|beta)",
    r"network\.[0246]\.\d\.mlp\.fc[12]\.(weight|bias)",
    r"network\.[0246]\.\d\.layer_scale_[12]",
    r"norm[0246]\.(weight|bias)",
]


def test_context_cluster__names_and_shapes_are_the_authors():
    weights = ContextCluster("tiny").state_dict()
    for pattern in RELEASED:
        assert any(re.fullmatch(pattern, name) for name in weights), pattern
    assert all(any(re.fullmatch(pattern, name) for pattern in RELEASED) for name in weights)
    assert [sum(name.startswith(f"network.{2 * i}.") for name in weights) / 18 for i in range(4)] == [3, 4, 5, 2]
    shapes = {
        "patch_embed.proj.weight": (32, 5, 4, 4),
        "network.3.proj.weight": (196, 64, 3, 3),
        "network.4.0.token_mixer.f.weight": (192, 196, 1, 1),
        "network.4.0.token_mixer.proj.weight": (196, 192, 1, 1),
        "network.4.0.token_mixer.sim_alpha": (1,),
        "network.0.0.mlp.fc1.weight": (256, 32),
        "network.0.0.layer_scale_1": (32,),
    }
    assert {name: tuple(weights[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("center_grid", [5, 7, (4, 2, 7, 4)])
def test_context_cluster__classifier_loads_into_any_number_of_centres(tmp_path, center_grid):
    weights = ContextCluster(SMALL).state_dict()
    classifier = {name: value + 1 for name, value in weights.items() if not re.match(r"norm\d", name)}
    classifier |= {"norm.weight": torch.ones(20), "head.weight": torch.ones(1000, 20), "head.bias": torch.ones(1000)}
    torch.save(dict(state_dict=classifier), tmp_path / "classifier.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "classifier.pth"))
    backbone = ContextCluster(SMALL, center_grid=center_grid, init_cfg=init_cfg)
    assert set(backbone.load_state_dict(classifier, strict=False).missing_keys) == {
        f"norm{i}.{end}" for i in (0, 2, 4, 6) for end in ("weight", "bias")
    }
    backbone = ContextCluster(SMALL, center_grid=center_grid, init_cfg=init_cfg)
    backbone.init_weights()
    loaded = backbone.state_dict()
    assert all(torch.equal(loaded[name], classifier[name]) for name in weights if name in classifier)


def test_context_cluster__is_probed_with_images_without_coordinates():
    backbone = MODELS.build(dict(type="mmseg_m2f.ContextCluster", arch=SMALL, in_channels=4))
    assert probe_feature_spec(backbone, backbone) == FeatureSpec((8, 12, 16, 20), (4, 8, 16, 32))


def test_context_cluster__some_stages():
    whole, part = ContextCluster(SMALL), ContextCluster(SMALL, out_indices=(0, 2))
    kept = part.load_state_dict(whole.state_dict(), strict=False)
    assert not kept.missing_keys
    assert {name.split(".")[0] for name in kept.unexpected_keys} == {"network", "norm2", "norm6"}
    image = torch.randn(1, 3, 64, 96)
    maps = whole(image)
    for found, expected in zip(part(image), (maps[0], maps[2]), strict=True):
        torch.testing.assert_close(found, expected)


def test_context_cluster__any_size_and_every_gradient():
    backbone = ContextCluster(SMALL, layer_scale_init=1.0)
    maps = backbone(torch.randn(2, 3, 70, 53))
    assert [tuple(x.shape[-2:]) for x in maps] == [(17, 13), (9, 7), (5, 4), (3, 2)]
    sum(x.square().sum() for x in maps).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in backbone.parameters())


def test_context_cluster__computed_again_with_the_same_gradients_from_fewer_maps():
    usual, again = ContextCluster(SMALL, layer_scale_init=1.0), ContextCluster(SMALL, with_cp=True)
    again.load_state_dict(usual.state_dict())
    image = torch.randn(1, 3, 64, 64)
    kept = []
    for backbone in (usual, again):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t):
            maps = backbone(image)
        kept.append(sum(sizes))
        sum(x.square().sum() for x in maps).backward()
    assert kept[1] < kept[0] / 3
    for expected, found in zip(usual.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_context_cluster__drop_path_grows_over_all_blocks():
    blocks = [m for m in ContextCluster(SMALL, drop_path_rate=0.4).modules() if isinstance(m, ContextClusterBlock)]
    assert [block.drop_path.drop_prob for block in blocks] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(arch=dict(depth=(1, 1, 1, 1))), r"arch: expected the fields depths, .*, got depth"),
        (dict(arch="smal"), "expected one of tiny, .* got 'smal'. Did you mean small"),
        (dict(arch="tiny", center_grid=(2, 2)), r"center_grid: expected four positive numbers.* got \(2, 2\)"),
        (dict(arch="tiny", center_grid=0), r"center_grid: expected four positive numbers"),
        (dict(arch="tiny", out_indices=(3, 1)), r"out_indices: expected stages .* got \(3, 1\)"),
        (dict(arch="tiny", out_indices=(4,)), r"out_indices: expected stages"),
    ],
)
def test_context_cluster__refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContextCluster(**arguments)


@pytest.mark.parametrize("arch", ARCHS)
def test_archs__published_widths(arch):
    widths = {"tiny": (32, 64, 196, 320), "base96": (96, 192, 384, 768)}.get(arch.split("_")[0].rstrip("2"))
    assert ARCHS[arch].widths == (widths or (64, 128, 320, 512))
