import torch

from mmseg_m2f.core.targets import frame, read_paired_segments
from mmseg_m2f.layers import point_reading
from mmseg_m2f.layers.kernels import point_sampling, triton_points, triton_support


def readings() -> dict[str, object]:
    torch.manual_seed(0)
    return dict(
        candidates=torch.rand(2, 60, 2),
        framed_maps=frame(torch.randint(-2, 3, (1, 1, 6, 7))),
        images=torch.zeros(2, dtype=torch.long),
        labels=torch.tensor([1, 0]),
    )


def chosen(maps: torch.Tensor) -> set[tuple[float, float]]:
    points = point_reading.pick_uncertain(maps, num_uncertain=20, **readings())
    return {tuple(point) for row in points.tolist() for point in row}


def test_point_reading__every_choice_gives_the_same(monkeypatch):
    maps = torch.randn(2, 5, 5)
    with_kernel = chosen(maps)
    monkeypatch.setenv("MMSEG_M2F_KERNELS", "off")
    assert not point_sampling.is_available(maps)
    assert chosen(maps) == with_kernel


def test_point_reading__a_gpu_asks_triton(monkeypatch):
    calls = []
    monkeypatch.setattr(point_sampling, "is_available", lambda _: False)
    monkeypatch.setattr(triton_support, "is_available", lambda: True)
    monkeypatch.setattr(triton_points, "read_pairs", lambda *args: calls.append(args) or expected)
    given = readings()
    maps, images, labels = (given[name] for name in ("framed_maps", "images", "labels"))
    segments = torch.tensor([0, 2])
    expected = read_paired_segments(maps, given["candidates"], images, segments, labels)
    here = point_reading.read_pairs(maps, given["candidates"], images, segments, labels)
    assert calls == []  # these tensors lie on the CPU
    assert all(map(torch.equal, here, expected))
    monkeypatch.setattr(point_reading, "has_gpu_kernel", lambda _: True)
    point_reading.read_pairs(maps, given["candidates"], images, segments, labels)
    assert len(calls) == 1


def test_has_gpu_kernel__not_for_tensors_on_the_cpu():
    assert not point_reading.has_gpu_kernel(torch.zeros(1))
