"""Equality with Hugging Face's EoMT on the same random weights."""

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.checkpoints.small_eomt import JOINT, SIZE, build_huggingface, build_ours

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("probs", [(1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
def test_huggingface_eomt__all_predictions(probs: tuple[float, ...]):
    theirs, ours = build_huggingface().double(), build_ours().double()
    for layer in theirs.layers:  # torch misreads their float32 mask beside float64 queries on a CPU
        layer.register_forward_pre_hook(
            lambda _, inputs: (inputs[0], None if inputs[1] is None else inputs[1].double())
        )
    theirs.attn_mask_probs.copy_(torch.tensor(probs))
    ours.load_state_dict(convert(theirs.state_dict(), to="ours").weights, strict=True)
    images = torch.randn(2, 3, SIZE, SIZE).double()
    seen = []
    predict = theirs.predict
    theirs.predict = lambda logits: seen.append(predict(logits)) or seen[-1]
    with torch.no_grad():
        theirs(pixel_values=images)
        predictions = ours.decode_head(ours.extract_feat(images))
    assert len(predictions) == JOINT + 1
    # At test they predict where a mask is needed, and at the end.
    wanted = [prediction for prediction, prob in zip(predictions, probs, strict=False) if prob] + predictions[-1:]
    for prediction, (masks, classes) in zip(wanted, seen, strict=True):
        assert min(classes.std(1).mean(), masks.std(1).mean()) > 0.01  # between queries
        assert 0.1 < (masks > 0).double().mean() < 0.9
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-9)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-9)
