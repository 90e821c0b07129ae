import pytest
import torch
from torch import nn

from mmseg_m2f.checkpoints import detr_layers
from mmseg_m2f.checkpoints.key_map import KeyMap

ENCODER = "decode_head.pixel_decoder.encoder.layers."
DECODER = "decode_head.query_decoder.transformer_decoder."


def test_authors_encoder__has_the_names_of_torch_s_layer() -> None:
    """DETR's authors took the layer of torch."""
    state = {f"e.layers.3.{name}": value for name, value in nn.TransformerEncoderLayer(4, 2, 8).state_dict().items()}
    ours = KeyMap("an encoder", detr_layers.authors_encoder("e.")).to_ours(state)
    assert len(ours) == len(state) == 12
    assert torch.equal(ours[f"{ENCODER}3.ffn.layers.0.0.weight"], state["e.layers.3.linear1.weight"])
    assert torch.equal(ours[f"{ENCODER}3.norms.1.bias"], state["e.layers.3.norm2.bias"])


def test_authors_decoder__has_the_names_of_torch_s_layer() -> None:
    state = {f"d.layers.0.{name}": value for name, value in nn.TransformerDecoderLayer(4, 2, 8).state_dict().items()}
    state["d.norm.weight"] = torch.ones(4)
    names = KeyMap("a decoder", detr_layers.authors_decoder("d."))
    ours = names.to_ours(state)
    assert torch.equal(
        ours[f"{DECODER}layers.0.cross_attn.attn.in_proj_weight"], state["d.layers.0.multihead_attn.in_proj_weight"]
    )
    assert f"{DECODER}post_norm.weight" in ours
    assert names.from_ours(ours).keys() == state.keys()


@pytest.mark.parametrize(
    ("part", "attentions"), [("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])]
)
def test_huggingface__projections_are_three_layers(part: str, attentions: list[str]) -> None:
    names = KeyMap(f"a {part}", getattr(detr_layers, f"huggingface_{part}")("m."))
    state = {
        f"m.layers.1.{attention}.{projection}_proj.bias": torch.full((2,), float(value))
        for attention in attentions
        for value, projection in enumerate("qkv")
    }
    packed = names.to_ours(state)
    assert len(packed) == len(attentions)
    assert all(value.tolist() == [0, 0, 1, 1, 2, 2] for value in packed.values())
    assert names.from_ours(packed).keys() == state.keys()


def test_huggingface_memory__names_of_its_fifth_release() -> None:
    names = KeyMap("a model", (), older=detr_layers.HUGGINGFACE_MEMORY)
    assert (
        names.modern_name("m.decoder.layers.2.encoder_attn.o_proj.bias")
        == "m.decoder.layers.2.encoder_attn.out_proj.bias"
    )
    assert names.modern_name("m.encoder.layers.0.mlp.fc1.weight") == "m.encoder.layers.0.fc1.weight"
