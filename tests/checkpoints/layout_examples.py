import torch

from mmseg_m2f.checkpoints.layouts import KEY_MAPS
from tests.checkpoints.small_models import build_ours, random_state

BACKBONES = ["resnet", "swin"]
LAYOUTS = [layout for layout, maps in KEY_MAPS.items() if "mask2former" in maps]


def random_weights(name: str) -> dict[str, torch.Tensor]:
    return random_state(build_ours(name))


def assert_same_predictions(ours, expected) -> None:
    with torch.no_grad():
        predictions = ours.decode_head(ours.extract_feat(IMAGES))
    assert len(predictions) == len(expected) == 3
    for prediction, (classes, masks) in zip(predictions, expected, strict=True):
        assert classes.std() > 0.01
        assert masks.std() > 0.01
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-5)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-5)


IMAGES = torch.randn(2, 3, 128, 96, generator=torch.Generator().manual_seed(0)).double()


def unused_by_us(state) -> set[str]:
    """Weights of Hugging Face's model that neither its predictions nor we depend on."""
    return {key for key in state if key == "criterion.empty_weight" or ".swin.layernorm." in key}
