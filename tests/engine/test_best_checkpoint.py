"""`save_best` and the figures that a validation gives."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook
from mmengine.logging import MessageHub
from mmengine.runner import Runner

from mmseg_m2f.engine.best_checkpoint import SkipAbsentBest, check_save_best, complete_best_rules
from mmseg_m2f.evaluation import MaskAP, ObjectMatching, PanopticQuality, SemanticIoU
from tests.fake_runner import fake_runner


class OtherMetric(BaseMetric):
    def process(self, data_batch: object, data_samples: object) -> None: ...

    def compute_metrics(self, results: list) -> dict: ...


def run_with(save_best: object, *metrics: BaseMetric) -> Runner:
    hook = CheckpointHook(save_best=save_best, rule="greater", by_epoch=False)
    return fake_runner(hooks=[hook], val_loop=object(), val_evaluator=SimpleNamespace(metrics=metrics))


METRICS = {
    "semantic": (SemanticIoU(), ["mIoU", "aAcc", "IoU.road"], "PQ"),
    "boundary": (SemanticIoU(boundary=True), ["boundary_mIoU", "boundary_IoU.road"], "mIoU"),
    "panoptic": (PanopticQuality(thing_classes=[0]), ["PQ", "SQ_things", "PQ.road"], "AP"),
    "instance": (MaskAP(), ["AP", "AP50", "AP_large", "AR_10", "AP.car"], "segm_mAP"),
    "matching": (ObjectMatching(), ["matching_AP50", "matching_F1", "matching_AP50.cell"], "F1"),
}


@pytest.mark.parametrize("task", METRICS)
def test_check_save_best__figures_of_each_task(task: str) -> None:
    metric, given, unknown = METRICS[task]
    for key in given:
        check_save_best(run_with(key, metric))
    with pytest.raises(ValueError, match=rf"save_best is '{unknown}', but val_evaluator .* expected one of") as raised:
        check_save_best(run_with([given[0], unknown], metric))
    assert given[0] in str(raised.value)


def test_check_save_best__refuses_a_threshold_that_is_not_evaluated() -> None:
    check_save_best(run_with("matching_AP90", ObjectMatching()))
    with pytest.raises(ValueError, match="save_best is 'matching_AP95'"):
        check_save_best(run_with("matching_AP95", ObjectMatching()))


def test_check_save_best__several_metrics_prefixes_and_foreign_ones() -> None:
    check_save_best(run_with(["PQ", "AP"], PanopticQuality(thing_classes=[0]), MaskAP()))
    check_save_best(run_with("anything", SemanticIoU(), OtherMetric()))
    check_save_best(run_with("auto", SemanticIoU()))
    metric = SemanticIoU()
    metric.prefix = "val"
    check_save_best(run_with("val/mIoU", metric))
    with pytest.raises(ValueError, match="Nearest: val/mIoU"):
        check_save_best(run_with("mIoU", metric))


def test_skip_absent_best__warns_once_and_keeps_training() -> None:
    runner = run_with("AP_large", MaskAP())
    checkpoints, hook, metrics = runner.hooks[0], SkipAbsentBest(), dict(AP=0.5)
    runner.message_hub, runner.iter = MessageHub.get_instance("absent"), 1
    with pytest.raises(KeyError, match="AP_large"):
        checkpoints._save_best_checkpoint(runner, dict(metrics))
    with pytest.warns(UserWarning, match="gives no 'AP_large'.*AP"):
        hook.after_val_epoch(runner, metrics=dict(metrics))
    hook.after_val_epoch(runner, metrics=metrics)  # a second warning would be an error
    checkpoints._save_best_checkpoint(runner, metrics)
    assert "best_score" not in runner.message_hub.runtime_info


def test_complete_best_rules__more_of_our_figures_is_better() -> None:
    cfg = Config(
        dict(
            default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="PQ")),
            custom_hooks=[
                dict(type="CheckpointHook", save_best=["IoU.glossy", "loss", "val/boundary_AP.cat"]),
                dict(type="CheckpointHook", save_best="coco/bbox_mAP"),
                dict(type="CheckpointHook", save_best="auto"),
                dict(type="CheckpointHook", save_best="AP", rule="less"),
                dict(type="EMAHook"),
            ],
        )
    )
    complete_best_rules(cfg)
    assert cfg.default_hooks.checkpoint.rule == "greater"
    hooks = cfg.custom_hooks
    assert [hook.get("rule") for hook in hooks] == [["greater", "less", "greater"], "greater", None, "less", None]
    CheckpointHook(**{k: v for k, v in hooks[0].items() if k != "type"})


def test_complete_best_rules__figure_that_says_nothing() -> None:
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type="CheckpointHook", save_best="quality"))))
    with pytest.raises(ValueError, match=r"checkpoint.save_best is 'quality'.*Set .*checkpoint.rule to 'greater' or"):
        complete_best_rules(cfg)
