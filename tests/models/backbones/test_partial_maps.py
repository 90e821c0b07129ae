import pytest
import torch

from mmseg_m2f.models.backbones.partial_maps import PartialMaps
from mmseg_m2f.structures import NeedsExtraLoss


def build(*, trained: bool) -> PartialMaps:
    maps = (torch.zeros(1, 4, 2, 3), torch.ones(1, 4, 2, 3))
    return PartialMaps(
        maps, (None, torch.ones(1, 2, 3, dtype=torch.bool)), torch.zeros(1, 2, 3).requires_grad_(trained), 8
    )


def test_partial_maps__are_a_sequence_of_maps():
    partial = build(trained=False)
    assert len(partial) == 2
    assert partial[-1] is partial.maps[1]
    assert partial[:1] == partial.maps[:1]


@pytest.mark.parametrize("losses", [[], ["a loss"]])
@pytest.mark.parametrize("trained", [False, True])
def test_partial_maps__need_an_extra_loss_where_edges_are_trained(trained, losses):
    partial = build(trained=trained)
    assert isinstance(partial, NeedsExtraLoss)
    if trained and not losses:
        with pytest.raises(ValueError, match=r"extra_losses is empty.*Set decode_head.extra_losses=\[dict"):
            partial.check_extra_losses(losses)
    else:
        partial.check_extra_losses(losses)
