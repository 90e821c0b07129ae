import pytest
import torch
import torchvision
from mmcv.ops import deform_roi_pool, roi_align, roi_pool

from mmseg_m2f.layers.mmcv_operators import regions
from tests.layers.mmcv_operators import references

# Inside, across the border, far outside, smaller than a cell, without extent, upside down; (image, x1, y1, x2, y2).
ROIS = torch.tensor(
    [
        [0, 2.0, 3.0, 17.0, 14.0],
        [1, -6.0, -3.0, 9.0, 30.0],
        [1, 200.0, 200.0, 220.0, 220.0],
        [0, 5.2, 5.1, 5.9, 6.0],
        [0, 7.0, 7.0, 7.0, 7.0],
        [1, 12.0, 9.0, 6.0, 3.0],
    ],
    dtype=torch.float64,
)


def random_features(channels: int = 2) -> torch.Tensor:
    return torch.randn(2, channels, 9, 11, dtype=torch.float64, requires_grad=True)


@pytest.fixture(params=[2**22, 40], ids=["at once", "in parts"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(regions, "_MOST_READINGS", request.param)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2, 5])
def test_roi_align__equals_a_loop_over_readings_with_gradient(sampling_ratio, aligned):
    features, arguments = random_features(), ((3, 2), 0.5, sampling_ratio)
    found = roi_align(features, ROIS, *arguments, "avg", aligned)
    expected = references.roi_align(features, ROIS, *arguments, aligned)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features, upstream), torch.autograd.grad(expected, features, upstream)
    )


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align__torchvisions_is_taken_and_equal_with_gradient(with_torchvision, sampling_ratio, aligned):
    features = random_features()
    arguments = (features, ROIS, (3, 2), 0.5, sampling_ratio, "avg", aligned)
    expected = torchvision.ops.roi_align(features, ROIS, (3, 2), 0.5, sampling_ratio, aligned)
    upstream = torch.randn_like(expected)
    gradient = torch.autograd.grad(expected, features, upstream)
    plain = roi_align(*arguments)
    torch.testing.assert_close(plain, expected)
    torch.testing.assert_close(torch.autograd.grad(plain, features, upstream), gradient)
    calls = with_torchvision(regions, "roi_align")
    found = roi_align(*arguments)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, features, upstream), gradient)
    assert calls == ["roi_align"] * 2  # the backward pass repeats the forward pass


@pytest.mark.usefixtures("with_torchvision")
def test_roi_pool__equals_torchvisions_at_whole_cells():
    """Elsewhere they differ: torchvision rounds a region's corners, mmcv does not, and counts its last pixel."""
    features = random_features()
    whole = torch.tensor([[0, 1, 2, 5, 8], [1, 0, 0, 10, 7]], dtype=torch.float64)
    found = roi_pool(features, whole, (3, 2), 1.0)
    expected = torchvision.ops.roi_pool(features, whole, (3, 2), 1.0)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features, upstream), torch.autograd.grad(expected, features, upstream)
    )


def test_roi_align__gradient_check():
    features = random_features(1)
    assert torch.autograd.gradcheck(lambda x: roi_align(x, ROIS[:2], 2, 0.5, 0, "avg", True), features)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_roi_align__computes_half_precision_in_single(dtype):
    features = random_features().detach().to(dtype)
    rois = ROIS[:2].to(dtype)
    found = roi_align(features, rois, 3, 0.5, 0, "avg", True)
    assert found.dtype == dtype
    assert torch.equal(found, roi_align(features.float(), rois.float(), 3, 0.5, 0, "avg", True).to(dtype))


@pytest.mark.parametrize("operator", [roi_align, roi_pool])
def test_regions__none_at_all(operator):
    features = random_features()
    pooled = operator(features, ROIS[:0], 3, 0.5)
    assert pooled.shape == (0, 2, 3, 3)
    assert torch.autograd.grad(pooled.sum(), features)[0].count_nonzero() == 0


def test_roi_align__maxima_are_refused_by_name():
    with pytest.raises(ValueError, match=r"mmcv\._ext\.roi_align_forward: expected pool_mode='avg', got 'max'"):
        roi_align(random_features(), ROIS, 3, 0.5, 0, "max", True)


@pytest.mark.usefixtures("chunks")
def test_roi_pool__equals_a_loop_over_bins_with_gradient():
    features = random_features()
    found, expected = roi_pool(features, ROIS, (3, 2), 0.5), references.roi_pool(features, ROIS, (3, 2), 0.5)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, features, upstream), torch.autograd.grad(expected, features, upstream)
    )


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("shifted", [True, False])
def test_deform_roi_pool__equals_a_loop_over_readings_with_gradients(shifted):
    features, rois = random_features(), ROIS[:2]
    offset = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True) if shifted else None
    found = deform_roi_pool(features, rois, offset, (3, 2), 0.5, 2, 0.1)
    expected = references.roi_align(features, rois, (3, 2), 0.5, 2, True, offset, 0.1)
    torch.testing.assert_close(found, expected)
    upstream, leaves = torch.randn_like(expected), (features, offset) if shifted else (features,)
    for actual, reference in zip(
        torch.autograd.grad(found, leaves, upstream), torch.autograd.grad(expected, leaves, upstream), strict=True
    ):
        torch.testing.assert_close(actual, reference)
