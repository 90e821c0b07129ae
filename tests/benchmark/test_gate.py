"""What the gate lets pass, and what it does not."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmseg_m2f.benchmark import gate
from mmseg_m2f.benchmark.gate import UnequalError, check_equality, compare
from mmseg_m2f.benchmark.implementations import Ours, build, build_all
from mmseg_m2f.benchmark.setting import make_batch
from mmseg_m2f.models.cuda_graphs import GraphedNetwork
from tests.benchmark.tiny import CONFIG, SETTING, write_variant
from tests.models.test_cuda_graphs import RunsAgain


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Ours, Ours]:
    first, second = build_all([CONFIG, write_variant(tmp_path / "same.py")], SETTING)
    assert isinstance(first, Ours)
    assert isinstance(second, Ours)
    return first, second


def test_compare__equal_weights_differ_in_nothing(pair: tuple[Ours, Ours]) -> None:
    found = compare(*pair, make_batch(SETTING, seed=0))
    assert found.compared
    assert found.failures == []
    assert len(found.figures) == 7
    assert set(found.figures.values()) == {0.0}


def test_compare__replayed_graphs_are_compared_with_the_network_run_as_usual(pair: tuple[Ours, Ours]) -> None:
    first, second = pair
    recorder = RunsAgain()
    second.model.graphs = GraphedNetwork(recorder=recorder)
    found = compare(first, second, make_batch(SETTING, seed=0))
    assert found.failures == []
    assert len(found.figures) == 10
    assert recorder.recorded == 3  # forward, backward, inference
    second.model.load_state_dict(first.model.state_dict())  # statistics of norms: it trained more often
    second.model.graphs = GraphedNetwork(recorder=_Forgets())
    failures = compare(first, second, make_batch(SETTING, seed=1)).failures
    assert [failure.partition(",")[0] for failure in failures] == ["gradients of replayed graphs"]


class _Forgets(RunsAgain):
    """Replays no backward pass."""

    def record(self, run: Callable[[], list[torch.Tensor]]) -> tuple[Callable[[], None], list[torch.Tensor]]:
        replay, results = super().record(run)
        if self.recorded == 2:
            return lambda: None, [result.zero_() for result in results]
        return replay, results


@pytest.mark.parametrize(
    ("part", "scale", "failures"),
    [
        ("query_decoder.cls_embed.bias", 0.01, ["class logits", "losses"]),
        ("pixel_decoder.mask_feature.weight", 0.01, ["mask logits", "losses", "gradients"]),
        ("query_decoder.mask_embed.4.bias", 1.0, ["mask logits", "attention bits", "their logits"]),
    ],
)
def test_compare__other_weights_fail(pair: tuple[Ours, Ours], part: str, scale: float, failures: list[str]) -> None:
    first, second = pair
    parameter = second.model.decode_head.get_parameter(part)
    with torch.no_grad():
        parameter += scale * torch.randn_like(parameter)
    found = compare(first, second, make_batch(SETTING, seed=0)).failures
    for failure in failures:
        assert any(sentence.startswith(failure) for sentence in found), found


def test_compare__another_loss_weight_fails(tmp_path: Path) -> None:
    variant = write_variant(tmp_path / "heavy.py", criterion=dict(loss_dice=dict(loss_weight=6.0)))
    found = compare(*build_all([CONFIG, variant], SETTING), make_batch(SETTING, seed=0))
    assert [sentence.partition(",")[0] for sentence in found.failures] == ["losses", "gradients"]


def test_compare__forced_bits_are_allowed_only_on_zero_logits(pair: tuple[Ours, Ours]) -> None:
    first, second = pair
    batch = make_batch(SETTING, seed=0)
    with second.recorded_masks() as masks:
        second.forward(batch)
    masks[0][0, 0, 0] = ~masks[0][0, 0, 0]
    with first.forced_masks(masks) as ties:
        first.forward(batch)
    assert ties[0].numel() == 1  # in the layers after it, what follows from that bit
    assert ties[0].abs() > 1e-5
    with first.recorded_masks() as restored:
        first.forward(batch)
    assert restored[0][0, 0, 0] != masks[0][0, 0, 0]


def test_compare__another_architecture_is_not_compared(tmp_path: Path) -> None:
    variant = write_variant(tmp_path / "deep.py", query_decoder=dict(num_layers=4))
    found = compare(*build_all([CONFIG, variant], SETTING), make_batch(SETTING, seed=0))
    assert not found.compared
    assert found.figures == {}


def test_compare__other_trained_weights_are_not_compared(pair: tuple[Ours, Ours]) -> None:
    pair[1].model.backbone.requires_grad_(False)
    assert not compare(*pair, make_batch(SETTING, seed=0)).compared


def test_check_equality__names_what_differs_after_three_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def counted(first: Ours, other: Ours, batch: object) -> gate.Comparison:
        tried.append(batch)
        return compare(first, other, batch)

    monkeypatch.setattr(gate, "compare", counted)
    variant = write_variant(tmp_path / "heavy.py", criterion=dict(loss_cls=dict(loss_weight=3.0)))
    with pytest.raises(UnequalError, match=r"heavy\.py: losses, largest difference: expected at most 1e-05, got 0\."):
        check_equality([CONFIG, variant], SETTING)
    assert len(tried) == 3
    tried.clear()
    assert check_equality([CONFIG, write_variant(tmp_path / "same.py")], SETTING)[0].failures == []
    assert len(tried) == 1


def test_ours__reference_numbers_last_for_the_block() -> None:
    ours = build(CONFIG, SETTING)
    assert isinstance(ours, Ours)
    with ours.reference_numbers():
        assert ours.model.decode_head.criterion.reference == "mmdet"
    assert ours.model.decode_head.criterion.reference is None
