import torch
from mmengine.runner import load_checkpoint

from tests.parity.conftest import build_mmseg, build_ours, make_batch


def test_openmmlab__mmseg_checkpoint_predicts_identically(tmp_path):
    theirs = build_mmseg(depth=18).eval()
    torch.save(dict(meta={}, state_dict=theirs.state_dict()), tmp_path / "mmseg.pth")
    ours = build_ours(depth=18).eval()
    load_checkpoint(ours, str(tmp_path / "mmseg.pth"), strict=True)
    images, samples = make_batch(128, 5)
    # Random weights leave many pixels nearly undecided: in float32, rounding alone would decide some of them.
    theirs, ours, images = theirs.double(), ours.double(), images.double()
    with torch.no_grad():
        expected = [sample.pred_sem_seg.data.clone() for sample in theirs.predict(images, samples)]
        actual = [sample.pred_sem_seg.data for sample in ours.predict(images, samples)]
    for label_map, reference in zip(actual, expected, strict=True):
        assert torch.equal(label_map, reference)


def test_openmmlab__mmdet_prefix_is_known(segmentor):
    own = {key: value.clone() for key, value in segmentor.state_dict().items()}
    renamed = {
        key.replace("decode_head.query_decoder.", "panoptic_head.").replace("decode_head.", "panoptic_head."): value + 1
        for key, value in own.items()
    }
    assert any(key.startswith("panoptic_head.transformer_decoder.") for key in renamed)
    segmentor.load_state_dict(renamed, strict=True)
    for key, value in segmentor.state_dict().items():
        assert torch.equal(value, own[key] + 1)


def test_openmmlab__our_own_keys_load(segmentor):
    keys = segmentor.load_state_dict(segmentor.state_dict(), strict=False)
    assert (keys.missing_keys, keys.unexpected_keys) == ([], [])
