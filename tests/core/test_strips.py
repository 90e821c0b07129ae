import pytest
import torch
from torch import Tensor

from mmseg_m2f.core.postprocess import resize_maps
from mmseg_m2f.core.strips import RowResize, default_memory_mb


def resized_in_strips(maps: Tensor, size: tuple[int, int], height: int) -> Tensor:
    resize = RowResize((maps.shape[1], maps.shape[2]), size, maps.device)
    strips = [slice(top, min(top + height, size[0])) for top in range(0, size[0], height)]
    return torch.cat([resize(maps[None, :, resize.source_rows(rows)], rows)[0] for rows in strips], 1)


@pytest.mark.parametrize("source", [(12, 16), (37, 141)])
@pytest.mark.parametrize("size", [(37, 141), (101, 141), (9, 150)])
@pytest.mark.parametrize("height", [1, 7, 200])
def test_row_resize__equals_resizing_all_rows(source, size, height):
    maps = torch.randn(5, *source) * 9
    assert torch.equal(resized_in_strips(maps, size, height), resize_maps(maps[None], size)[0])


@pytest.mark.parametrize("size", [(12, 16), (48, 64), (5, 40), (101, 16)])
def test_row_resize__small_sizes_up_to_rounding(size):
    maps = torch.randn(5, 12, 16)
    found = resized_in_strips(maps, size, 7)
    torch.testing.assert_close(found, resize_maps(maps[None], size)[0], rtol=0, atol=1e-6)


def test_row_resize__needs_few_rows():
    resize = RowResize((100, 3), (400, 3), torch.device("cpu"))
    assert resize.source_rows(slice(0, 8)) == slice(0, 3)
    assert resize.source_rows(slice(202, 206)) == slice(50, 52)
    assert resize.source_rows(slice(399, 400)) == slice(99, 100)


def test_row_resize__copies_nothing_from_the_host():
    maps = torch.randn(1, 5, 12, 16, device="meta")
    rows = RowResize((12, 16), (37, 141), maps.device)(maps, slice(3, 20))
    assert rows.shape == (1, 5, 17, 141)


def test_default_memory__depends_on_the_device():
    assert default_memory_mb(torch.device("cpu")) < default_memory_mb(torch.device("meta"))
