import pytest
import torch
from torch import nn

from mmseg_m2f.core.boxes import to_corners
from mmseg_m2f.core.chunks import ChunkBudget
from mmseg_m2f.core.postprocess import tight_boxes
from mmseg_m2f.models.query_decoders import AnchorMaskDecoder, anchor_mask
from mmseg_m2f.models.query_decoders.anchor_mask import boxes_around_masks, boxes_at
from mmseg_m2f.structures import MaskPrediction, PixelFeatures, PixelSpec, boxes_of
from tests.models.pixel_decoders.maps import count
from tests.models.query_decoders.test_denoising import batch_of

SIZES = [(2, 3), (4, 6)]
SPEC = PixelSpec(16, (16, 16), 16)


def pixel_features(batch: int = 2) -> PixelFeatures:
    levels = tuple(torch.randn(batch, 16, *size) for size in SIZES)
    return PixelFeatures(torch.randn(batch, 16, 16, 24), levels, levels[0])


def small_decoder(**options: object) -> AnchorMaskDecoder:
    sizes = dict(num_queries=7, num_layers=2, num_heads=4, feedforward_channels=32) | options
    decoder = AnchorMaskDecoder(5, SPEC, **sizes).eval()
    for parameter in decoder.parameters():  # zeros and ones hide mistakes
        nn.init.normal_(parameter, std=0.3)
    return decoder


@pytest.mark.parametrize(
    ("num_classes", "levels", "options", "expected"),
    [
        (80, 4, dict(), 14_547_668),
        (133, 4, dict(), 14_574_857),
        (80, 5, dict(), 14_769_716),
        (150, 3, dict(select=False, num_queries=100, class_activation="softmax"), 14_321_483),
        (19, 3, dict(select=False, num_queries=100, class_activation="softmax"), 14_254_280),
    ],
)
def test_anchor_mask__published_sizes(num_classes, levels, options, expected):
    with torch.device("meta"):
        decoder = AnchorMaskDecoder(num_classes, PixelSpec(256, (256,) * levels, 256), denoising=dict(), **options)
    assert count(decoder) == expected
    assert (count(decoder.box_embed), count(decoder.mask_embed)) == (132_612, 197_376)


@pytest.mark.parametrize("select", [True, False])
def test_anchor_mask__slots_are_invisible_to_the_queries(select):
    """Predictions of the queries in training are those of a test."""
    decoder, features = small_decoder(select=select, denoising=dict(num_queries=6)), pixel_features()
    trained, tested = decoder.predict_for_training(features, batch_of(2, 1)), decoder(features)
    assert len(trained.layers) == len(tested) == 3
    for ours, theirs in zip(trained.layers, tested, strict=True):
        torch.testing.assert_close(ours.class_logits, theirs.class_logits)
        torch.testing.assert_close(ours.mask_embeddings, theirs.mask_embeddings)
        torch.testing.assert_close(ours.boxes, theirs.boxes)
    (last,) = decoder(features, last_only=True)
    assert torch.equal(last.class_logits, tested[-1].class_logits)
    denoising = trained.denoising
    assert len(denoising.predictions) == (3 if select else 2)  # learnt queries have no first one of copies
    assert all(each.class_logits.shape == (2, 6, 5) for each in denoising.predictions)
    assert denoising.assignment.counts == [[6] * len(denoising.predictions), [3] * len(denoising.predictions)]
    assert (trained.encoder is None) is not select


def test_anchor_mask__classes_are_normed_twice_and_boxes_once():
    decoder, features = small_decoder(num_layers=1), pixel_features()
    seen = []
    decoder.transformer_decoder.layers[0].register_forward_hook(lambda _, inputs, output: seen.append((inputs, output)))
    first, last = decoder(features)
    ((inputs, state),) = seen
    norm = decoder.transformer_decoder.post_norm
    torch.testing.assert_close(last.class_logits, decoder.cls_embed(norm(norm(state))))
    torch.testing.assert_close(last.mask_embeddings, decoder.mask_embed(norm(norm(state))))
    torch.testing.assert_close(last.boxes, (decoder.box_embed(norm(state)) + first.boxes.logit()).sigmoid())
    assert not torch.allclose(last.class_logits, decoder.cls_embed(norm(state)), atol=1e-2)
    torch.testing.assert_close(first.class_logits, decoder.cls_embed(norm(inputs[0])))


def test_anchor_mask__encoder_predicts_what_the_first_queries_do_and_trains_the_cells():
    decoder, features = small_decoder(), pixel_features()
    for level in features.levels:
        level.requires_grad_()
    predictions = decoder.predict_for_training(features, batch_of(1, 1))
    encoder, first = predictions.encoder, predictions.layers[0]
    assert torch.equal(encoder.class_logits, first.class_logits)
    assert torch.equal(encoder.mask_embeddings, first.mask_embeddings)
    assert not first.boxes.requires_grad
    reached = [
        torch.autograd.grad(part.sum(), features.levels, retain_graph=True, allow_unused=True)
        for part in (encoder.class_logits, encoder.mask_embeddings, encoder.boxes, first.class_logits)
    ]
    assert [any(grad is not None and grad.any() for grad in grads) for grads in reached] == [True, True, True, False]


def test_anchor_mask__boxes_start_around_the_masks():
    features = pixel_features()
    first = small_decoder(box_init="masks")(features)[0]
    expected = boxes_around_masks(first)
    torch.testing.assert_close(first.boxes, expected.clamp(1e-5, 1 - 1e-5), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(small_decoder(box_init="encoder")(features)[0].boxes, expected)


def test_boxes_around_masks__last_row_and_column_count():
    maps = torch.full((1, 2, 4, 8), -1.0)
    maps[0, 0, 1:3, 2:6] = 1
    prediction = MaskPrediction(torch.zeros(1, 2, 3), torch.eye(2).unsqueeze(0), maps)
    boxes = boxes_around_masks(prediction)
    assert to_corners(boxes)[0].tolist() == [[2 / 8, 1 / 4, 6 / 8, 3 / 4], [0, 0, 0, 0]]


def test_anchor_mask__all_masks_empty():
    decoder, features = small_decoder(box_init="masks"), pixel_features()
    nn.init.zeros_(decoder.mask_embed[-1].weight)
    nn.init.constant_(decoder.mask_embed[-1].bias, -1.0)
    predictions = decoder(features._replace(mask_features=features.mask_features.abs()))
    assert all(part.isfinite().all() for each in predictions for part in each)


def test_anchor_mask__copies_without_noise_keep_their_boxes():
    decoder = small_decoder(denoising=dict(num_queries=6, label_noise=0.0, box_noise=0.0))
    nn.init.zeros_(decoder.box_embed[-1].weight)
    nn.init.zeros_(decoder.box_embed[-1].bias)
    targets = batch_of(2, 2)
    copies = decoder.predict_for_training(pixel_features(), targets).denoising.predictions
    for prediction in copies:
        torch.testing.assert_close(boxes_of(prediction), targets.boxes.repeat(1, 3, 1), rtol=0, atol=1e-5)


def test_anchor_mask__learnt_queries_get_gradients_and_keep_no_order():
    decoder, features, order = small_decoder(select=False), pixel_features(), torch.randperm(7)
    last = decoder(features)[-1]
    grads = torch.autograd.grad(
        last.class_logits.square().sum(), [decoder.query_feat.weight, decoder.query_boxes.weight]
    )
    assert all(grad.any(-1).all() for grad in grads)
    for table in (decoder.query_feat, decoder.query_boxes):
        table.weight.data = table.weight.data[order]
    torch.testing.assert_close(decoder(features)[-1].boxes, last.boxes[:, order])


def test_anchor_mask__levels_of_different_widths():
    with pytest.raises(ValueError, match=r"maps of one width, got levels of \(8, 16\)"):
        AnchorMaskDecoder(5, PixelSpec(16, (8, 16), 16))


def test_anchor_mask__autocast_decodes_in_float32():
    decoder, features = small_decoder(denoising=dict(num_queries=6)), pixel_features()
    with torch.autocast("cpu", torch.bfloat16):
        half = features._replace(mask_features=features.mask_features.bfloat16())
        found = decoder.predict_for_training(half, batch_of(2, 1))
    last = found.layers[-1]
    assert last.boxes.dtype == torch.float32
    assert last.mask_embeddings.dtype == last.mask_features.dtype == torch.bfloat16


def test_anchor_mask__order_of_levels_is_a_labelling():
    """Levels and what belongs to them the other way round give the same queries and predictions."""
    features = pixel_features()
    turned_features = features._replace(levels=features.levels[::-1])
    ours, turned = small_decoder(proposal_sizes="coarsest_smallest"), small_decoder(proposal_sizes="finest_smallest")
    turned.load_state_dict(ours.state_dict())
    for layer in turned.transformer_decoder.layers:
        for linear in (layer.cross_attn.sampling_offsets, layer.cross_attn.attention_weights):
            for parameter in (linear.weight, linear.bias):  # rows are heads, levels, what is left
                parameter.data = parameter.data.unflatten(0, (4, len(SIZES), -1)).flip(1).flatten(0, 2)
    for found, expected in zip(turned(turned_features), ours(features), strict=True):
        torch.testing.assert_close(found.class_logits, expected.class_logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-4, atol=1e-5)


def test_boxes_at__up_to_the_first_empty_row_and_column():
    mask = torch.zeros(6, 10, dtype=torch.bool)
    mask[1:3, 1:4] = True  # the segment at the first place: rows 1 and 2, columns 1 to 3
    mask[4:6, 6:9] = True  # another one
    masks = mask.expand(1, 4, 6, 10).clone()
    masks[0, 3] = False
    centres = torch.tensor([[[0.25, 0.35], [0.75, 0.95], [0.45, 0.35], [0.5, 0.5]]])
    found = boxes_at(masks, centres)[0].tolist()
    assert found[0] == [1, 1, 4, 3]
    assert found[1] == [6, 4, 9, 6]
    assert found[2] == [1, 1, 9, 3]  # column 4 is empty: the whole extent along x
    assert found[3] == [0, 0, 0, 0]


def test_boxes_at__rounding_of_a_centre_between_two_pixels_changes_nothing():
    masks = torch.zeros(1, 3, 4, 8, dtype=torch.bool)
    masks[..., 1:3, 4:7] = True  # the centre of a cell of 2 x 4 pixels lies on the left border of column 4
    centres = torch.tensor([[[0.5, 0.5]] * 3]) + torch.tensor([-1e-6, 0, 1e-6])[:, None]
    assert boxes_at(masks, centres)[0].tolist() == [[4, 1, 7, 3]] * 3
    masks[..., 1:3, 0:4:2] = True  # beside the pixel left of the border, which would be the place
    assert boxes_at(masks, centres)[0].tolist() == [[4, 1, 7, 3]] * 3


def test_boxes_at__one_connected_mask_has_its_tight_box():
    rows, columns = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    distance = (rows - 9).hypot(columns - 13)
    ring = ((distance < 8) & (distance > 5)).expand(1, 40, 20, 30)
    found = boxes_at(ring, torch.rand(1, 40, 2) * torch.tensor([0.4, 0.6]) + 0.2)
    assert found.unique(dim=1).tolist() == [[tight_boxes(ring[0, :1])[0].tolist()]]


def test_anchor_mask__boxes_start_at_parts_of_masks_in_any_chunks(monkeypatch):
    decoder, features = small_decoder(box_init="centred_masks"), pixel_features()
    whole = [layer.boxes for layer in decoder(features)]
    monkeypatch.setattr(anchor_mask, "_CHUNK", ChunkBudget(cpu=1, gpu=1))
    for boxes, expected in zip([layer.boxes for layer in decoder(features)], whole, strict=True):
        torch.testing.assert_close(boxes, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            dict(box_init="centered_masks"),
            "box_init: expected one of encoder, masks, centred_masks, got 'centered_masks'",
        ),
        (dict(proposal_sizes="smallest"), "proposal_sizes: expected one of coarsest_smallest, finest_smallest"),
        (dict(class_activation="relu"), "class_activation: expected one of sigmoid, softmax, got 'relu'"),
        (dict(select=False, box_init="masks"), "select=False learns the queries; got box_init='masks'"),
        (dict(select=False, proposal_sizes="finest_smallest"), "got proposal_sizes='finest_smallest'. Leave it out"),
        (dict(denoising=dict(noise=1)), "a dict of num_queries, label_noise, box_noise, got 'noise'"),
    ],
)
def test_anchor_mask_decoder__refuses_options_that_would_do_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        small_decoder(**options)
