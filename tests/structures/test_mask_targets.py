import torch

from mmseg_m2f.structures import BACKGROUND, CROWD, VOID, TargetBatch

BATCH = TargetBatch(
    labels=torch.tensor([[3, 5], [2, 0]]),
    framed_maps=torch.tensor([0, VOID, CROWD, BACKGROUND]).view(1, 1, 1, 4).expand(2, 1, 3, 4).contiguous(),
    num_segments=(2, 1),
    names=("a", "b"),
)


def test_target_batch__maps_without_their_frame() -> None:
    assert BATCH.segment_maps.tolist() == [[[[VOID, CROWD]]]] * 2


def test_target_batch__void_and_crowds_as_background() -> None:
    assert BATCH.with_void_as_background().framed_maps[0, 0, 0].tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]


def test_target_batch__classes_on_the_host_leave_out_padding() -> None:
    assert BATCH.classes_on_host() == [[3, 5], [2]]
