"""Turns, parts of a step, and medians."""

import pytest
import torch

from mmseg_m2f.benchmark import timing
from mmseg_m2f.benchmark.implementations import build
from mmseg_m2f.benchmark.setting import make_batch
from mmseg_m2f.benchmark.timing import PARTS, Stopwatch, run_inference, time_inference, time_round, time_training
from tests.benchmark.tiny import CONFIG, SETTING


def test_stopwatch__adds_up_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 11.0, 14.0, 100.0, 100.5])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    watch = Stopwatch("cpu")
    watch.start()
    watch.mark("a")
    watch.mark("b")
    watch.start()
    watch.mark("a")
    assert watch.seconds() == {"a": 1.5, "b": 3.0}


def test_time_training__parts_add_up_and_weights_move() -> None:
    ours = build(CONFIG, SETTING)
    weight = ours.model.decode_head.query_decoder.cls_embed.weight
    before = weight.detach().clone()
    seconds = time_training(ours, make_batch(SETTING, seed=0), SETTING, steps=1)
    assert list(seconds) == [*PARTS, "step"]
    assert min(seconds.values()) > 0
    assert seconds["step"] == pytest.approx(sum(seconds[part] for part in PARTS))
    assert not torch.equal(weight, before)
    assert weight.grad is None
    assert list(time_inference(ours, make_batch(SETTING, seed=0), SETTING, steps=1)) == ["inference"]


def test_inference__label_maps_of_the_size_of_the_images() -> None:
    ours = build(CONFIG, SETTING)
    ours.model.eval()
    labels = run_inference(ours, make_batch(SETTING, seed=0), SETTING)
    assert [label_map.shape for label_map in labels] == [(64, 64)] * 2
    assert max(label_map.max() for label_map in labels) < SETTING.classes


def test_time_round__turns_rotate() -> None:
    models = [build(CONFIG, SETTING) for _ in range(3)]
    for model, name in zip(models, "abc", strict=True):
        model.name = name
    options = dict(training=False, inference=False, steps=1)
    orders = [list(time_round(models, make_batch(SETTING, 0), SETTING, first=i, **options)) for i in range(4)]
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]
