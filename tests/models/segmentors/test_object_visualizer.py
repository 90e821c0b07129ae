from mmengine.registry import VISUALIZERS

from mmseg_m2f.models.segmentors import ObjectVisualizer


def test_object_visualizer__without_a_name_is_a_new_one() -> None:
    settings = dict(type="mmseg_m2f.ObjectVisualizer", vis_backends=None)
    first, second = VISUALIZERS.build(settings), VISUALIZERS.build(settings)
    assert type(first) is ObjectVisualizer
    assert first is not second


def test_object_visualizer__of_one_name_is_one() -> None:
    settings = dict(type="mmseg_m2f.ObjectVisualizer", vis_backends=None, name="object results")
    assert VISUALIZERS.build(settings) is VISUALIZERS.build(settings)
