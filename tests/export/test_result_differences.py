import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmseg_m2f.export.export_gate import smooth_images
from mmseg_m2f.export.fixed_results import Results
from mmseg_m2f.export.result_differences import Differences, check_results, compare_image
from mmseg_m2f.inference import Predictor
from mmseg_m2f.models.normalisation import Normalisation
from tests.tiny_segmentation import tiny_config, write_dataset


def sample() -> BaseDataElement:
    found = BaseDataElement()
    found.pred_sem_seg = PixelData(sem_seg=torch.tensor([[[0, 1], [1, 1]]]))
    found.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([[[0, 1001], [1001, 1001]]]))
    masks = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])
    found.pred_instances = InstanceData(
        scores=torch.tensor([0.25, 0.5]), labels=torch.tensor([0, 1]), bboxes=torch.eye(2, 4), masks=masks
    )
    return found


def results() -> dict[str, np.ndarray]:
    """The same, the best object first, with an empty place."""
    objects = sample().pred_instances
    order = [1, 0, 0]
    return dict(
        labels=np.array([[0, 1], [1, 1]]),
        panoptic=np.array([[0, 1001], [1001, 1001]]),
        object_scores=np.array([0.5, 0.25, 0.0], np.float32),
        object_labels=objects.labels.numpy()[order],
        object_boxes=objects.bboxes.numpy()[order],
        object_masks=objects.masks.numpy()[order],
    )


def test_compare_image__equal_results_in_any_order():
    assert compare_image(results(), sample()) == Differences(num_images=1, num_objects=2)


def test_compare_image__counts_what_differs():
    found = results()
    found["labels"][0, 0] = 1
    found["panoptic"][1] = 0
    found["object_scores"][1] += 0.125
    found["object_masks"][0, 0, 0] = True
    # The object whose mask differs is missing, and there is another one in its place.
    assert compare_image(found, sample()) == Differences(1, 1, 2, 2, 2, 0.125)


def test_compare_image__objects_beyond_the_models_count():
    found = results()
    found["object_scores"][2] = 0.125
    assert compare_image(found, sample()).objects == 1


def test_check_results__a_graph_that_prepares_images_otherwise_is_refused(tmp_path):
    write_dataset(tmp_path, size=(40, 56))
    torch.manual_seed(0)
    model = Predictor(tiny_config(tmp_path)).model
    model.decode_head.conv_seg.weight.data *= 200
    images = [(128 + 60 * smooth_images(1, 40, 57)[0]).clamp(0, 255).to(torch.uint8)]
    own = Normalisation.of_model(model)
    check_results(model, Results(model, own), images)
    with pytest.raises(ValueError, match="expected the results of predict, got others for an image of 40 x 57: [1-9]"):
        check_results(model, Results(model, own._replace(std=tuple(-value for value in own.std))), images)


def test_differences__add_up():
    assert Differences(1, 2, 3, 4, 5, 0.5).plus(Differences(1, 1, 1, 1, 1, 0.25)) == Differences(2, 3, 4, 5, 6, 0.5)
