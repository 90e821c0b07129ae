"""Findings from facts alone; with files: test_examination.py."""

from mmengine.config import Config

from mmseg_m2f.engine.doctor.facts import SampleFacts
from mmseg_m2f.engine.doctor.findings import Finding, findings_of_config, findings_of_data, worst_first

CFG = Config(dict(model=dict()))


def said(facts: list[SampleFacts], classes: tuple = ("a", "b")) -> str:
    return "\n".join(f.text for f in findings_of_data(facts, loop="train", classes=classes, cfg=CFG))


def test_findings_of_data__masks_of_0_and_255():
    text = said([SampleFacts("a", label="l", mapped={0: 5, 255: 5})])
    assert "labels hold 0 and 255 alone; 255 means void, so that class 'b' never occurs" in text


def test_findings_of_data__labels_from_1():
    facts = [SampleFacts("a", label="l", mapped={1: 5, 2: 5})]
    found = findings_of_data(facts, loop="train", classes=("a", "b"), cfg=CFG)[0]
    assert found.change == {"train_dataloader.dataset.reduce_zero_label": True}


def test_findings_of_data__void_share_and_lost_objects():
    assert "80% of all pixels are void" in said([SampleFacts("a", label="l", mapped={0: 1, 1: 1, 255: 8})])
    assert "leaves 25% of the objects without pixels" in said([SampleFacts("a", objects=4, lost_objects=1)], ())


def test_worst_first__errors_before_notes():
    order = [Finding(severity, "k", "t", "r") for severity in ("note", "error", "warning")]
    assert [finding.severity for finding in worst_first(order)] == ["error", "warning", "note"]


def test_findings_of_config__batch_of_another_size_than_the_recipe() -> None:
    cfg = Config(
        dict(
            auto_scale_lr=dict(base_batch_size=16),
            train_dataloader=dict(batch_size=2),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-4)),
        )
    )
    (finding,) = findings_of_config(cfg, processes=2)
    assert finding.change == {"optim_wrapper.optimizer.lr": 2.5e-5}
    assert "2.5e-05" in finding.remedy
    cfg.optim_wrapper.optimizer.pop("lr")
    (finding,) = findings_of_config(cfg, processes=2)
    assert not finding.change
    assert "0.25 times that of the recipe" in finding.remedy
    assert findings_of_config(cfg, processes=8) == []


def test_finding__shows_ten_files_and_counts_the_others() -> None:
    lines = Finding("error", "k", "t", "r", tuple(map(str, range(13)))).lines()
    assert lines[1:] == [*(f"    {number}" for number in range(10)), "    and 3 more, which the page of --out lists"]
