import io

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.backbones import swin as mmdet_swin
from mmseg.models.backbones import swin as mmseg_swin
from mmseg.models.backbones.swin import ShiftWindowMSA
from mmseg.models.utils import Upsample
from mmseg.models.utils.embed import AdaptivePadding
from torch import nn

from mmseg_m2f.core.sizes import is_known_equal
from mmseg_m2f.export.rewrites import bin_matrix, exportable_code, pool_to_size, sample_by_gather


class Listed(nn.Module):
    """Maps of a backbone."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return list(self.backbone(x))


class Pooled(nn.Module):
    """Code that fixes the sizes of the example without the rewrites."""

    def __init__(self) -> None:
        super().__init__()
        self.upsample = Upsample(scale_factor=2, mode="bilinear", align_corners=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        padded = F.pad(x, (0, -width % 8, 0, -height % 8))
        coarse = F.interpolate(padded, (height // 8 + 1, width // 8 + 1), mode="area")
        positions = torch.linspace(-0.5, 0.5, width, dtype=x.dtype, device=x.device)
        fine = F.interpolate(self.upsample(coarse), (height, width), mode="bilinear")
        return (
            fine + positions + F.adaptive_avg_pool2d(x, (1, 1)) + F.adaptive_avg_pool2d(x, 3).amax((2, 3), keepdim=True)
        )


def test_rewrites__one_program_for_all_sizes():
    model = Pooled()
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with exportable_code():
        program = torch.export.export(model, (torch.randn(2, 3, 50, 75),), dynamic_shapes=(dynamic,))
    run = program.module(check_guards=False)
    for size in ((2, 50, 75), (1, 64, 64), (3, 41, 96)):
        x = torch.randn(size[0], 3, *size[1:])
        torch.testing.assert_close(run(x), model(x), rtol=0, atol=2e-6)


def test_rewrites__nothing_stays_replaced():
    before = (F.interpolate, F.pad, F.adaptive_avg_pool2d, F.grid_sample, torch.linspace, Upsample.forward)
    with exportable_code("gather"):
        assert F.pad is not before[1]
    after = (F.interpolate, F.pad, F.adaptive_avg_pool2d, F.grid_sample, torch.linspace, Upsample.forward)
    assert all(one is other for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("size", [(7, 5), (3, 3), 2, (1, 4), (13, 20)])
def test_pool_to_size__is_adaptive_pooling(size):
    x = torch.randn(2, 3, 13, 20)
    torch.testing.assert_close(pool_to_size(x, size), F.adaptive_avg_pool2d(x, size), rtol=0, atol=1e-6)


def test_bin_matrix__bins_overlap_where_the_length_is_no_multiple():
    expected = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])
    assert torch.equal(bin_matrix(3, 2, expected), expected)


def test_sample_by_gather__is_grid_sample():
    maps, grid = torch.randn(2, 3, 9, 14), 3 * torch.rand(2, 5, 6, 2) - 1.5  # also outside
    expected = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(sample_by_gather(maps, grid), expected, rtol=0, atol=2e-6)


def test_sample_by_gather__refuses_what_it_does_not_compute():
    with pytest.raises(ValueError, match="--lowering gridsample"):
        sample_by_gather(torch.randn(1, 1, 4, 4), torch.zeros(1, 2, 2, 2), padding_mode="border")


@pytest.mark.parametrize("shift", [0, 3])
def test_swin__windows_are_mmsegs(shift):
    attention = ShiftWindowMSA(8, num_heads=2, window_size=7, shift_size=shift).eval()
    nn.init.normal_(attention.w_msa.relative_position_bias_table)
    for height, width in ((14, 21), (10, 17)):
        tokens = torch.randn(2, height * width, 8)
        expected = attention(tokens, (height, width))
        with exportable_code():
            found = attention(tokens, (height, width))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("package", [mmseg_swin, mmdet_swin])
def test_swin__one_program_for_all_sizes(package):
    """Windows with and without shift, merged patches; sizes that are no multiples of patches or windows."""
    torch.manual_seed(0)
    options = dict(depths=(1, 2), num_heads=(1, 2), strides=(4, 2), out_indices=(0, 1))
    model = package.SwinTransformer(embed_dims=8, window_size=3, drop_path_rate=0, **options)
    model.eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with exportable_code(), torch.no_grad():
        program = torch.export.export(Listed(model), (torch.randn(2, 3, 50, 75),), dynamic_shapes=(dynamic,))
    torch.export.save(program, io.BytesIO())  # which has no operator for a ceiling of sizes
    run = program.module(check_guards=False)
    for size in ((2, 50, 75), (1, 48, 24), (3, 33, 90)):
        x = torch.randn(size[0], 3, *size[1:])
        with torch.no_grad():
            for found, expected in zip(run(x), model(x), strict=True):
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(4, 4, 1), (7, 4, 1), (2, 3, 1), (3, 2, 2), (1, 4, 1)])
@pytest.mark.parametrize("padding", ["corner", "same"])
def test_adaptive_padding__is_mmsegs(kernel, stride, dilation, padding):
    module = AdaptivePadding(kernel, stride, dilation, padding)
    for size in ((8, 12), (9, 13), (11, 7)):
        x = torch.randn(1, 2, *size)
        expected = module(x)
        with exportable_code():
            found = module(x)
        assert torch.equal(found, expected)


def test_is_known_equal__is_false_in_a_program_for_any_size():
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if is_known_equal(x.shape[-2:], (4, 4)) else x + 1

    shapes = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(Model(), (torch.zeros(1, 1, 5, 6),), dynamic_shapes=shapes)
    assert float(program.module()(torch.zeros(1, 1, 4, 4)).max()) == 1


def test_split__pieces_of_unknown_sizes_are_slices():
    """A sequence of tensors would make onnxruntime reuse memory of another shape."""

    class Levels(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            height, width = x.shape[-2:]
            cells = torch.cat([x.flatten(2), x[..., ::2, :].flatten(2)], -1)
            pieces = cells.split([height * width, (height + 1) // 2 * width], -1)
            return [*pieces, *torch.split(x, 1, 1)]

    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with exportable_code():
        program = torch.export.export(Levels(), (torch.randn(1, 2, 7, 9),), dynamic_shapes=(dynamic,))
    assert not any("split_with_sizes" in str(node.target) for node in program.graph.nodes)
    run = program.module(check_guards=False)
    for size in ((7, 9), (4, 3)):
        x = torch.randn(1, 2, *size)
        for found, expected in zip(run(x), Levels()(x), strict=True):
            assert torch.equal(found, expected)
