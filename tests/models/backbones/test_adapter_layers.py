import pytest
import torch
import torch.nn.functional as F

from mmseg_m2f.models.backbones.adapter_layers import Adapter, Extractor, Injector


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("width", "heads", "injectors", "expected"),
    [
        (384, 6, True, 4_353_680),
        (768, 12, True, 13_680_608),
        (1024, 16, True, 23_236_800),
        (384, 6, False, 3_421_232),
        (768, 12, False, 9_972_512),
        (768, 16, False, 10_193_984),
        (1024, 16, False, 16_654_272),
        (4096, 16, False, 227_084_736),
    ],
)
def test_adapter__has_the_parameters_of_the_releases(width, heads, injectors, expected):
    with torch.device("meta"):
        adapter = Adapter(width, num_heads=heads, injectors=injectors)
    assert size(adapter) == expected


@pytest.mark.parametrize(
    ("width", "heads", "extractor", "injector", "up"),
    [(768, 12, 1_004_112, 927_024, 2_360_064), (1024, 16, 1_781_184, 1_645_632, 4_195_328)],
)
def test_adapter__parameters_of_its_parts(width, heads, extractor, injector, up):
    with torch.device("meta"):
        adapter = Adapter(width, num_heads=heads)
    extractors = [part for part in adapter.modules() if isinstance(part, Extractor)]
    assert [size(part) for part in extractors] == [extractor] * 6
    assert [size(part) for part in adapter.injectors] == [injector] * 4
    assert size(adapter.up) == up
    assert size(adapter.norms) == 8 * width
    if width == 768:
        assert size(adapter.spm) == 1_579_328


@pytest.mark.parametrize(("height", "width"), [(32, 64), (48, 80)])
def test_adapter__tokens_of_the_branch(height, width):
    adapter = Adapter(8, num_heads=2)
    finest, maps, sizes = adapter.start(torch.randn(2, 3, height, width))
    assert finest.shape == (2, 8, height // 4, width // 4)
    assert sizes == [(-(-height // stride), -(-width // stride)) for stride in (8, 16, 32)]
    if height % 32 == width % 32 == 0:
        assert maps.shape[1] == 21 * (height // 16) * (width // 16) // 4


def without_offsets(attention: torch.nn.Module) -> None:
    """Let all points lie at the token's own place, with equal weights."""
    for layer in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)


def test_extractor__one_cell_reads_what_the_formula_says():
    extractor = Extractor(8, num_heads=2, inner_channels=4, drop_path_rate=0.0)
    without_offsets(extractor.attn)
    torch.nn.init.zeros_(extractor.ffn.fc2.weight)
    torch.nn.init.zeros_(extractor.ffn.fc2.bias)
    patches, sizes, grid = torch.randn(2, 12, 8), [(6, 8), (3, 4), (2, 2)], (3, 4)
    maps = torch.randn(2, 48 + 12 + 4, 8)
    normed = F.layer_norm(patches, (8,), eps=1e-6)
    values = F.linear(normed, extractor.attn.value_proj.weight).transpose(1, 2).unflatten(-1, grid)
    expected = []
    for height, width in sizes:
        y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
        points = 2 * torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1) - 1
        read = F.grid_sample(values, points.expand(2, -1, -1, -1), align_corners=False)
        expected.append(read.flatten(2).transpose(1, 2))
    expected = maps + F.linear(torch.cat(expected, 1), extractor.attn.output_proj.weight)
    torch.testing.assert_close(extractor(maps, patches, grid=grid, sizes=sizes), expected)


def test_extractor__each_map_is_convolved_by_itself():
    extractor = Extractor(8, num_heads=2, inner_channels=4, drop_path_rate=0.0)
    sizes, maps = [(4, 6), (2, 3), (1, 2)], torch.randn(1, 32, 8)
    mixed = extractor.ffn(maps, sizes)
    changed = maps.clone()
    changed[:, 24:] += 1
    again = extractor.ffn(changed, sizes)
    assert torch.equal(mixed[:, :24], again[:, :24])
    assert not torch.allclose(mixed[:, 24:], again[:, 24:])
    dwconv, fc1, fc2 = extractor.ffn.dwconv, extractor.ffn.fc1, extractor.ffn.fc2
    last = dwconv(fc1(maps[:, 30:]).transpose(1, 2).unflatten(-1, (1, 2)))
    torch.testing.assert_close(mixed[:, 30:], fc2(F.gelu(last.flatten(2).transpose(1, 2))))


def test_injector__starts_without_effect_and_learns():
    injector, patches = Injector(8, num_heads=2, inner_channels=4), torch.randn(2, 6, 8)
    maps, sizes = torch.randn(2, 24 + 6 + 2, 8), [(4, 6), (2, 3), (1, 2)]
    found = injector(patches, maps, grid=(2, 3), sizes=sizes)
    assert torch.equal(found, patches)
    found.sum().backward()
    assert injector.gamma.grad.abs().min() > 0


def test_adapter__maps_are_the_sums_normalised():
    adapter = Adapter(8, num_heads=2, norm_cfg=dict(type="GN", num_groups=1)).eval()
    finest, maps, sizes = adapter.start(torch.randn(1, 3, 32, 64))
    patches = [torch.randn(1, 8, 2, 4) for _ in range(4)]
    found = adapter.finish(finest, maps, patches, sizes=sizes)
    c2, c3, c4 = (x.transpose(1, 2).unflatten(-1, s) for x, s in zip(maps.split([32, 8, 2], 1), sizes, strict=True))
    sums = [finest + adapter.up(c2), c2, c3, c4]
    for x, base, patch_map in zip(found, sums, patches, strict=True):
        resized = F.interpolate(patch_map, base.shape[-2:], mode="bilinear")
        torch.testing.assert_close(x, F.group_norm(base + resized, 1))
