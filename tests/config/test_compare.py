"""What differs between two configs."""

from mmengine.config import Config

from mmseg_m2f.config.compare import ABSENT, differences


def compare(left: dict, right: dict) -> list[tuple[str, str, str]]:
    return [tuple(found) for found in differences(Config(dict(model=left)), Config(dict(model=right)))]


def test_differences__names_the_place_and_both_values() -> None:
    left, right = dict(a=dict(b=1, c="x"), d=2), dict(a=dict(b=3, c="x"), e=None)
    assert compare(left, right) == [
        ("model.a.b", "1", "3"),
        ("model.d", "2", ABSENT),
        ("model.e", ABSENT, "None"),
    ]


def test_differences__tuples_equal_lists_and_lists_of_numbers_are_one_value() -> None:
    assert compare(dict(size=(1, 2)), dict(size=[1, 2])) == []
    assert compare(dict(size=(1, 2)), dict(size=[1, 3])) == [("model.size", "[1, 2]", "[1, 3]")]
    assert compare(dict(sizes=[(1, 2), (3, 4)]), dict(sizes=[[1, 2], [3, 5]])) == [
        ("model.sizes.1", "[3, 4]", "[3, 5]")
    ]


def test_differences__an_inserted_step_shifts_no_other() -> None:
    steps = [dict(type="a"), dict(type="b", size=1), dict(type="c")]
    longer = [steps[0], dict(type="new"), *steps[1:]]
    assert compare(dict(steps=steps), dict(steps=longer)) == [("model.steps.1", ABSENT, "{'type': 'new'}")]
    assert compare(dict(steps=longer), dict(steps=steps)) == [("model.steps.1", "{'type': 'new'}", ABSENT)]


def test_differences__changed_steps_are_compared_inside() -> None:
    left = [dict(type="a"), dict(type="b", size=1)]
    assert compare(dict(steps=left), dict(steps=[dict(type="a"), dict(type="b", size=2)])) == [
        ("model.steps.1.size", "1", "2")
    ]


def test_differences__leaves_out_variables_that_no_run_reads() -> None:
    left, right = Config(dict(helper=1, max_iters=2)), Config(dict(helper=3, max_iters=4))
    assert [found.key for found in differences(left, right)] == ["max_iters"]
