from unittest.mock import Mock

import pytest
import torch
from mmengine.runner import Runner

from mmseg_m2f.engine.hooks import MaskAnnealing
from mmseg_m2f.models.query_decoders import EncoderMaskDecoder
from mmseg_m2f.structures import FeatureSpec


def runner_at(iteration: int, max_iters: int, num_blocks: int = 4) -> Mock:
    model = torch.nn.Module()
    model.decode_head = torch.nn.Module()
    model.decode_head.query_decoder = EncoderMaskDecoder(2, FeatureSpec((8,), (16,), num_blocks))
    return Mock(spec=Runner, model=model, iter=iteration, max_iters=max_iters)


def probabilities(iteration: int, max_iters: int = 600, **options: float) -> list[float]:
    runner = runner_at(iteration, max_iters)
    MaskAnnealing(**options).before_train_iter(runner, 0)
    return runner.model.decode_head.query_decoder.attn_mask_probs.tolist()


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [
        (0, [1, 1, 1, 1]),
        (100, [1, 1, 1, 1]),
        (150, [0.5**0.9, 1, 1, 1]),
        (175, [0.25**0.9, 1, 1, 1]),
        (200, [0, 1, 1, 1]),
        (310, [0, 0, 0.9**0.9, 1]),
        (480, [0, 0, 0, 0.2**0.9]),
        (501, [0, 0, 0, 0]),
        (599, [0, 0, 0, 0]),
    ],
)
def test_mask_annealing__by_hand(iteration, expected):
    assert probabilities(iteration) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("max_iters", "starts", "ends"),
    [
        (88692, (14782, 29564, 44346, 59128), (29564, 44346, 59128, 73910)),  # COCO
        (39120, (6520, 13040, 19560, 26080), (13040, 19560, 26080, 32600)),  # ADE20K
    ],
)
def test_mask_annealing__published_steps(max_iters, starts, ends):
    for block, (start, end) in enumerate(zip(starts, ends, strict=True)):
        assert probabilities(start, max_iters)[block] == pytest.approx(1, abs=1e-6)
        assert 0 < probabilities(start + 1, max_iters)[block] < 1
        assert 0 < probabilities(end - 1, max_iters)[block] < 0.01
        assert probabilities(end + 1, max_iters)[block] == 0


def test_mask_annealing__own_fractions_and_power():
    assert probabilities(60, 100, start=0.0, end=0.8, power=1.0) == pytest.approx([0, 0, 0, 1])
    assert probabilities(30, 100, start=0.0, end=0.8, power=2.0) == pytest.approx([0, 0.25, 1, 1])


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.0)])
def test_mask_annealing__wrong_fractions(start, end):
    with pytest.raises(ValueError, match=f"start < end < 1, got start={start}, end={end}"):
        MaskAnnealing(start=start, end=end)


def test_mask_annealing__another_decoder():
    runner = runner_at(0, 10)
    runner.model.decode_head.query_decoder = torch.nn.Identity()
    with pytest.raises(ValueError, match="expected EncoderMaskDecoder .* got Identity"):
        MaskAnnealing().before_train_iter(runner, 0)
