from mmengine.visualization import Visualizer

from mmseg_m2f.models.segmentors.visualizer_name import unused_name


def test_unused_name__is_that_of_no_visualizer() -> None:
    name = unused_name()
    assert not Visualizer.check_instance_created(name)
    Visualizer.get_instance(name, vis_backends=None)
    assert unused_name() != name
