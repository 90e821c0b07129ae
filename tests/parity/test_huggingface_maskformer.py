"""Equality with Hugging Face's MaskFormer on the same random weights, taken through the name map."""

import pytest
import torch

from mmseg_m2f.checkpoints.layouts import convert
from tests.checkpoints.small_maskformer import build_huggingface, build_ours

pytestmark = pytest.mark.parity


def build_twins(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    theirs, ours = build_huggingface(name), build_ours(name)
    ours.load_state_dict(convert(theirs.state_dict(), to="ours").weights, strict=True)
    return theirs.double(), ours.double()


@pytest.mark.parametrize("name", ["resnet", "swin"])
def test_huggingface_maskformer__both_predictions(name: str):
    theirs, ours = build_twins(name)
    images = torch.randn(2, 3, 128, 96).double()
    states = []
    # Their own auxiliary predictions lack the norm, so the first layer's output goes through norm and heads here.
    decoder = theirs.model.transformer_module.decoder
    decoder.layers[0].register_forward_hook(lambda module, inputs, output: states.append(output))
    with torch.no_grad():
        expected = theirs(pixel_values=images)
        first = decoder.layernorm(states[0])
        first_masks = torch.einsum(
            "bqc,bchw->bqhw", theirs.mask_embedder(first), expected.pixel_decoder_last_hidden_state
        )
        predictions = ours.decode_head(ours.extract_feat(images))
    layers = [
        (theirs.class_predictor(first), first_masks),
        (expected.class_queries_logits, expected.masks_queries_logits),
    ]
    assert len(predictions) == 2
    for prediction, (classes, masks) in zip(predictions, layers, strict=True):
        assert min(classes.std(1).mean(), masks.std(1).mean()) > 0.01  # between queries
        torch.testing.assert_close(prediction.class_logits, classes, rtol=0, atol=1e-9)
        torch.testing.assert_close(prediction.mask_logits(), masks, rtol=0, atol=1e-9)
