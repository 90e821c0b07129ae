"""Pipelines and schedules of the ingredients."""

from mmengine.registry import TRANSFORMS

from mmseg_m2f.config.recipes import (
    crops_of_segments,
    draw_ratio,
    draw_short_side,
    label_map_pipelines,
    loaders,
    object_pipelines,
    poly_schedule,
    resize,
    segment_pipelines,
    step_schedule,
)


def test_poly_schedule__decays_to_the_end_of_training() -> None:
    max_iters, (fall,), train_cfg = poly_schedule(90)
    assert (max_iters, fall["end"], fall["begin"], train_cfg) == (90, 90, 0, dict(max_iters=90, val_interval=5000))


def test_poly_schedule__decays_from_where_the_warm_up_ends() -> None:
    _, (rise, fall), _ = poly_schedule(90, warmup=10, warmup_factor=0.5, power=1.0)
    assert (rise["begin"], rise["end"], rise["start_factor"]) == (0, 10, 0.5)
    assert (fall["begin"], fall["end"], fall["power"]) == (10, 90, 1.0)


def test_step_schedule__keeps_the_validation_interval_of_its_base() -> None:
    max_iters, (steps,), train_cfg = step_schedule(90, milestones=[60, 80])
    assert (max_iters, steps["milestones"], train_cfg) == (90, [60, 80], dict(max_iters=90))


def test_draw_short_side__of_the_published_recipe() -> None:
    drawn = draw_short_side(512)
    assert (drawn["scales"][0], drawn["scales"][-1], drawn["max_size"], len(drawn["scales"])) == (256, 1024, 2048, 16)


def test_label_map_pipelines__views_scale_every_size_of_the_test() -> None:
    test = [dict(type="mmseg.ResizeShortestEdge", scale=520, max_size=2080)]
    _, pipeline, views = label_map_pipelines((480, 480), draw=draw_ratio((520, 520)), test_resize=test)
    assert pipeline[1] == test[0]
    sizes = [(view["scale"], view["max_size"]) for view in views[1]["transforms"][0]]
    assert sizes == [(260, 1040), (390, 1560), (520, 2080), (650, 2600), (780, 3120), (910, 3640)]


def test_label_map_pipelines__labels_are_loaded_after_the_resize_in_tests() -> None:
    _, pipeline, _ = label_map_pipelines(
        (64, 64), draw=draw_ratio((64, 64)), test_resize=[resize((64, 64))], void_labels=[3]
    )
    kinds = [step["type"] for step in pipeline]
    assert kinds == ["mmseg_m2f.CheckedLoading", "mmengine.Resize", "mmseg_m2f.CheckedLoading", "mmseg.PackSegInputs"]
    assert pipeline[2]["transforms"][1] == dict(type="mmseg_m2f.IgnoreLabels", labels=[3])


def test_segment_pipelines__void_is_background_for_tests_of_things() -> None:
    train, test = segment_pipelines(
        crops_of_segments((64, 64), short_side=64), test_resize=[resize((64, 64))], only_things=[2, 1]
    )
    (taken,), (tested,) = (
        [step for step in steps if step["type"] == "mmseg_m2f.SegmentsToObjects"] for steps in (train, test)
    )
    assert taken == dict(type="mmseg_m2f.SegmentsToObjects", thing_classes=[2, 1])
    assert tested == taken | dict(ignore_void=False)


def test_object_pipelines__boxes_only_read_no_masks() -> None:
    for boxes_only in (True, False):
        train, test = object_pipelines([], test_resize=[], boxes_only=boxes_only)
        assert [step.get("with_mask", False) for step in (train[1], test[1])] == [not boxes_only] * 2
        for step in (*train, *test):
            TRANSFORMS.build(step)


def test_loaders__without_arguments_change_the_pipelines_alone() -> None:
    train, val, test = loaders([dict(type="a")], [dict(type="b")])
    assert train == dict(dataset=dict(pipeline=[dict(type="a")]))
    assert val == test == dict(dataset=dict(pipeline=[dict(type="b")]))


def test_loaders__of_a_data_set_test_in_test_mode() -> None:
    train, val, _ = loaders([], [], both=dict(type="x"), train=dict(ann_file="t"), val=dict(ann_file="v"))
    assert train == dict(dataset=dict(type="x", ann_file="t", pipeline=[]))
    assert val == dict(dataset=dict(type="x", ann_file="v", pipeline=[], test_mode=True))
