from mmengine.registry import VISUALIZERS

from mmseg_m2f.models.segmentors import SemanticVisualizer


def test_semantic_visualizer__without_a_name_is_a_new_one() -> None:
    settings = dict(type="mmseg_m2f.SemanticVisualizer", vis_backends=None)
    first, second = VISUALIZERS.build(settings), VISUALIZERS.build(settings)
    assert type(first) is SemanticVisualizer
    assert first is not second


def test_semantic_visualizer__of_one_name_is_one() -> None:
    settings = dict(type="mmseg_m2f.SemanticVisualizer", vis_backends=None, name="semantic results")
    assert VISUALIZERS.build(settings) is VISUALIZERS.build(settings)
