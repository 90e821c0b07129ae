from types import SimpleNamespace

import pytest
import torch
from mmdet.models.detectors import DeformableDETR
from torch import nn

from mmseg_m2f.models.query_decoders.query_selection import QuerySelection, box_proposals

SIZES = [(2, 3), (4, 5), (7, 10)]


def test_box_proposals__first_of_each_level():
    sizes = [(2, 4), (4, 8), (8, 16), (16, 32)]
    logits, counts = box_proposals(sizes, torch.zeros(1), proposal_sizes="coarsest_smallest")
    firsts = [sum(h * w for h, w in sizes[:level]) for level in range(4)]
    for first, (height, width), side in zip(firsts, sizes, (0.05, 0.1, 0.2, 0.4), strict=True):
        expected = torch.tensor([0.5 / width, 0.5 / height, side, side])
        torch.testing.assert_close(logits[first].sigmoid(), expected)
    assert counts.all()


def test_box_proposals__cells_at_the_border_of_a_large_map_do_not_count():
    logits, counts = box_proposals([(2, 64)], torch.zeros(1), proposal_sizes="coarsest_smallest")
    assert counts.view(2, 64).tolist() == [[False, *[True] * 62, False]] * 2  # 0.5 / 64 is less than 0.01
    assert logits[~counts].sigmoid().unique().tolist() == [1.0]


def test_query_selection__equals_mmdets_dino():
    selection = QuerySelection(8, proposal_sizes="finest_smallest")
    classify, locate = nn.Linear(8, 3), nn.Linear(8, 4)
    memory = torch.randn(2, 96, 8)
    content, box_logits = selection(memory, SIZES, classify=classify, locate=locate, num_queries=5)
    # mmdet's levels are fine to coarse.
    fine_first = torch.cat(memory.split([h * w for h, w in SIZES], 1)[::-1], 1)
    model = SimpleNamespace(memory_trans_fc=selection.proj, memory_trans_norm=selection.norm)
    output, proposals = DeformableDETR.gen_encoder_output_proposals(model, fine_first, None, torch.tensor(SIZES[::-1]))
    best = classify(output).max(-1)[0].topk(5, dim=1)[1].unsqueeze(-1)  # as DINO.pre_decoder does
    torch.testing.assert_close(content, output.gather(1, best.expand(-1, -1, 8)))
    coordinates = (locate(output) + proposals).gather(1, best.expand(-1, -1, 4))
    torch.testing.assert_close(box_logits, coordinates)


def test_query_selection__too_few_cells():
    selection = QuerySelection(8, proposal_sizes="coarsest_smallest")
    with pytest.raises(ValueError, match=r"at least 7 cells .* got 6 \(levels of 2×3 cells\)"):
        selection(torch.randn(1, 6, 8), [(2, 3)], classify=nn.Linear(8, 3), locate=nn.Linear(8, 4), num_queries=7)
