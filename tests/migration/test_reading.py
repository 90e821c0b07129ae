import pytest

from mmseg_m2f.migration.reading import MigrationReport, Part


def part(content: object, **defaults: object) -> Part:
    return Part(content, "model", scope="mmseg", report=MigrationReport(), defaults=defaults)


def test_part__values_and_defaults() -> None:
    given = part(dict(type="ResNet", depth=18), strides=(1, 2))
    assert (given.name, given.library) == ("ResNet", "mmseg")
    assert given.take("depth") == given.count("depth") == given.number("depth") == 18
    assert given.take("strides") == (1, 2)
    assert given.take("num_stages") == 4  # ResNet's own
    assert "depth" in given
    assert "strides" not in given


def test_part__everything_must_be_asked_for() -> None:
    given = part(dict(type="ResNet", depth=18, dept=50))
    given.take("depth")
    with pytest.raises(ValueError, match=r"model.dept: 50 has no counterpart here. Nearest known: depth"):
        given.finish()
    given.leave_out("dept", "a slip")
    given.finish()
    assert given.report.left_out == ["model.dept: a slip"]


def test_part__expectations() -> None:
    given = part(dict(mode="whole", size="large"))
    given.expect("mode", "slide", "whole", because="there are two")
    with pytest.raises(ValueError, match=r"model.mode: expected 'slide', got 'whole': only that"):
        given.expect("mode", "slide", because="only that")
    with pytest.raises(ValueError, match=r"model.size: expected a number, got 'large'"):
        given.number("size")
    with pytest.raises(ValueError, match=r"model.size: expected an integer, got 'large'"):
        given.count("size")
    with pytest.raises(ValueError, match=r"model.depth: expected this key, got \['mode', 'size'\]"):
        given.take("depth")


def test_part__below_a_key() -> None:
    given = part(dict(head=dict(a=1)))
    assert given.part("head").take("a") == 1
    assert given.part("other", dict(b=2)).take("b") == 2
    with pytest.raises(ValueError, match=r"model.head.a: 1 has no counterpart"):
        given.part("head").finish()
    with pytest.raises(ValueError, match=r"model: expected a dict, got 3"):
        part(3)


def test_part__choice_by_class() -> None:
    given = Part(dict(type="mmdet.DiceLoss"), "loss", scope="mmseg", report=MigrationReport())
    assert given.choose(dict(DiceLoss=lambda chosen: chosen.path)) == "loss"
    with pytest.raises(
        ValueError, match=r"loss.type: 'mmdet.DiceLoss' has no counterpart here. Nearest: mmdet.FocalLoss"
    ):
        given.choose(dict(FocalLoss=lambda chosen: chosen.path))
