import pytest

from mmseg_m2f.config.stored_config import read_stored_config

MODEL = dict(type="mmseg.EncoderDecoder", backbone=dict(type="mmseg.ResNet", norm_cfg=dict(type="BN")))


def test_stored_config__keeps_tuples_and_leaves_out_what_acts():
    text = repr(dict(model=MODEL, crop_size=(3, 4), custom_imports=dict(imports=["evil"]), load_from="x.pth"))
    cfg = read_stored_config(text, source="model.onnx")
    assert cfg.crop_size == (3, 4)
    assert cfg.model.backbone.type == "mmseg.ResNet"
    assert set(cfg.keys()) == {"model", "crop_size"}


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("__import__('os').system('true')", "something else"),
        ("[1, 2]", "one without"),
        (repr(dict(model=dict(type="os.system", command="true"))), "the type 'os.system'"),
        (repr(dict(model=MODEL, hook=[dict(type="mmengine.fileio.load", file="x.pkl")])), "mmengine.fileio.load"),
        (repr(dict(model=MODEL, other=dict(type="mmengine.load", file="x.pkl"))), "mmengine.load"),
        (repr(dict(model=MODEL, other=dict(type=3))), "the type 3"),
    ],
)
def test_stored_config__is_data_and_never_code(text, got):
    with pytest.raises(ValueError, match=f"model.onnx: expected its config to hold .*{got}"):
        read_stored_config(text, source="model.onnx")
