"""Mask2FormerHead and MaskFormerHead of mmseg and mmdet, rewritten as a `MaskHead`."""

from collections.abc import Mapping, Sequence

from mmseg_m2f.migration.reading import Config, Part

HEADS = ("Mask2FormerHead", "MaskFormerHead")

# What mmdet's and mmcv's layers assume where a config says nothing; they are built without a `type`.
_ATTENTION = dict(
    embed_dims=256,
    num_heads=8,
    attn_drop=0.0,
    proj_drop=0.0,
    dropout_layer=dict(type="Dropout", drop_prob=0.0),
    batch_first=True,
)
_DEFORMABLE = dict(
    embed_dims=256, num_heads=8, num_levels=4, num_points=4, dropout=0.1, norm_cfg=None, value_proj_ratio=1.0
)
_FEED_FORWARD = dict(
    embed_dims=256,
    feedforward_channels=1024,
    num_fcs=2,
    act_cfg=dict(type="ReLU", inplace=True),
    ffn_drop=0.0,
    dropout_layer=None,
    add_identity=True,
    layer_scale_init_value=0.0,
)
_POSITION: Config = dict(
    num_feats=128, temperature=10000, scale=6.283185307179586, eps=1e-6, offset=0.0, normalize=False
)
_LAYER = dict(norm_cfg=dict(type="LN"))
_STACK = dict(post_norm_cfg=dict(type="LN"), return_intermediate=True)


def migrate_head(head: Part, train: Part, num_classes: int) -> Config:
    """The `decode_head` without its `num_classes`.

    Args:
        head: upstream's head; keys that only its library knows are asked for by the caller.
        train: the `train_cfg` with the assigner.
    """
    channels = head.count("feat_channels")
    head.expect("out_channels", channels, because="features and masks have one width here, feat_channels")
    for key in ("in_channels", "strides", "in_index"):
        head.leave_out(key, "the head asks the backbone")
    parts = _mask2former(head, channels) if head.name == "Mask2FormerHead" else _maskformer(head, channels)
    _expect_position(head.part("positional_encoding"), channels)
    criterion = _criterion(head, train, num_classes)
    _leave_out_init(head)
    return dict(type="mmseg_m2f.MaskHead", **parts, criterion=criterion)


def _mask2former(head: Part, channels: int) -> Config:
    num_levels = head.count("num_transformer_feat_level")
    pixel = head.part("pixel_decoder")
    pixel_decoder = pixel.choose(
        dict(MSDeformAttnPixelDecoder=lambda part: _deformable_pixel_decoder(part, channels, num_levels))
    )
    head.expect("enforce_decoder_input_project", False, because="levels of the queries' width are not projected here")
    num_layers, heads, hidden, dropout = _decoder(head.part("transformer_decoder", _STACK), channels)
    if dropout:
        head.refuse("transformer_decoder", f"dropout {dropout}: MaskedAttentionDecoder has none, as published")
    query_decoder = dict(
        type="mmseg_m2f.MaskedAttentionDecoder",
        num_queries=head.count("num_queries"),
        channels=channels,
        num_layers=num_layers,
        num_heads=heads,
        feedforward_channels=hidden,
    )
    return dict(pixel_decoder=pixel_decoder, query_decoder=query_decoder)


def _maskformer(head: Part, channels: int) -> Config:
    pixel = head.part("pixel_decoder")
    pixel_decoder = pixel.choose(
        dict(
            PixelDecoder=lambda part: _fpn_pixel_decoder(part, channels),
            TransformerEncoderPixelDecoder=lambda part: _transformer_pixel_decoder(part, channels),
        )
    )
    # Behind a transformer mmdet never projects, whatever the key says.
    enforced = bool(head.take("enforce_decoder_input_project")) and pixel.name == "PixelDecoder"
    num_layers, heads, hidden, dropout = _decoder(head.part("transformer_decoder", _STACK), channels)
    query_decoder = dict(
        type="mmseg_m2f.CrossAttentionDecoder",
        num_queries=head.count("num_queries"),
        channels=channels,
        num_layers=num_layers,
        num_heads=heads,
        feedforward_channels=hidden,
        dropout=dropout,
        enforce_projection=enforced,
    )
    return dict(pixel_decoder=pixel_decoder, query_decoder=query_decoder)


def _deformable_pixel_decoder(part: Part, channels: int, num_levels: int) -> Config:
    part.leave_out("strides", "the head asks the backbone")
    encoder = part.part("encoder")
    layer = encoder.part("layer_cfg", _LAYER)
    attention = layer.part("self_attn_cfg", _DEFORMABLE)
    attention.expect("embed_dims", channels, because="the pixel decoder has one width, feat_channels")
    attention.expect("num_levels", num_levels, because="queries attend to the levels that the encoder makes")
    part.expect("num_outs", num_levels, because="queries attend to the levels that the encoder makes")
    attention.expect("dropout", 0.0, because="DeformablePixelDecoder has none, as published")
    attention.expect("norm_cfg", None, because="deformable attention has no norm of its own")
    attention.expect("value_proj_ratio", 1.0, because="values have the width of the tokens")
    attention.take("batch_first") if "batch_first" in attention else None
    attention.leave_out("im2col_step", "a detail of mmcv's kernel")
    num_heads, num_points = attention.count("num_heads"), attention.count("num_points")
    _leave_out_init(attention)
    attention.finish()
    hidden, dropout = _feed_forward(layer.part("ffn_cfg", _FEED_FORWARD), channels)
    if dropout:
        layer.refuse("ffn_cfg.ffn_drop", f"{dropout}: DeformablePixelDecoder has no dropout, as published")
    num_layers = _finish_stack(encoder, layer)
    groups = _finish_convolutions(part, channels)
    return dict(
        type="mmseg_m2f.DeformablePixelDecoder",
        channels=channels,
        num_levels=num_levels,
        num_layers=num_layers,
        num_heads=num_heads,
        num_points=num_points,
        feedforward_channels=hidden,
        norm_groups=groups,
    )


def _fpn_pixel_decoder(part: Part, channels: int) -> Config:
    groups = _finish_convolutions(part, channels, positions=False)
    return dict(type="mmseg_m2f.FPNPixelDecoder", channels=channels, norm_groups=groups)


def _transformer_pixel_decoder(part: Part, channels: int) -> Config:
    encoder = part.part("encoder")
    layer = encoder.part("layer_cfg", _LAYER)
    heads, dropout = _attention(layer.part("self_attn_cfg", _ATTENTION), channels)
    hidden, ffn_dropout = _feed_forward(layer.part("ffn_cfg", _FEED_FORWARD), channels)
    _expect_one_dropout(layer, (dropout, ffn_dropout))
    num_layers = _finish_stack(encoder, layer)
    groups = _finish_convolutions(part, channels)
    return dict(
        type="mmseg_m2f.TransformerFPNPixelDecoder",
        channels=channels,
        num_layers=num_layers,
        num_heads=heads,
        feedforward_channels=hidden,
        dropout=dropout,
        norm_groups=groups,
    )


def _decoder(decoder: Part, channels: int) -> tuple[int, int, int, float]:
    """Layers, heads, hidden channels and dropout of a transformer decoder."""
    layer = decoder.part("layer_cfg", _LAYER)
    heads, dropout = _attention(layer.part("self_attn_cfg", _ATTENTION), channels)
    cross_heads, cross_dropout = _attention(layer.part("cross_attn_cfg", _ATTENTION), channels)
    if heads != cross_heads:
        layer.refuse("cross_attn_cfg.num_heads", f"{cross_heads} differs from {heads} in self_attn_cfg")
    hidden, ffn_dropout = _feed_forward(layer.part("ffn_cfg", _FEED_FORWARD), channels)
    _expect_one_dropout(layer, (dropout, cross_dropout, ffn_dropout))
    decoder.expect("post_norm_cfg", dict(type="LN"), because="queries are normed by LayerNorm before each prediction")
    decoder.expect("return_intermediate", True, because="every layer is supervised")
    return _finish_stack(decoder, layer), heads, hidden, dropout


def _attention(part: Part, channels: int) -> tuple[int, float]:
    """Heads and dropout; mmcv has up to three rates in one attention, of which ours knows one."""
    part.expect("embed_dims", channels, because="the layers have one width, feat_channels")
    part.expect("batch_first", True, because="mmdet's transformers have no other order")
    weights, projected, layer = part.number("attn_drop"), part.number("proj_drop"), part.take("dropout_layer")
    residual = layer.get("drop_prob", 0.5) if isinstance(layer, Mapping) else 0.0
    if isinstance(layer, Mapping) and layer.get("type") != "Dropout":
        part.refuse("dropout_layer", f"{layer!r}: expected dict(type='Dropout') or None")
    if "dropout" in part:  # mmcv's older name for two of them
        weights = residual = part.number("dropout")
    passed = (1 - projected) * (1 - residual)
    heads = part.count("num_heads")
    _leave_out_init(part)
    part.finish()
    if abs(weights - (1 - passed)) > 1e-9:
        part.refuse("attn_drop", f"{weights} differs from {1 - passed} on the residual branch; expected one rate")
    return heads, weights


def _feed_forward(part: Part, channels: int) -> tuple[int, float]:
    """Hidden channels and dropout."""
    part.expect("embed_dims", channels, because="the layers have one width, feat_channels")
    part.expect("num_fcs", 2, because="feed-forward networks have two layers")
    _expect_relu(part)
    part.expect("dropout_layer", None, because="feed-forward networks drop inside only")
    part.expect("add_identity", True, because="feed-forward networks have a residual connection")
    part.expect("layer_scale_init_value", 0.0, because="feed-forward networks have no layer scale")
    hidden, dropout = part.count("feedforward_channels"), part.number("ffn_drop")
    _leave_out_init(part)
    part.finish()
    return hidden, dropout


def _finish_stack(stack: Part, layer: Part) -> int:
    """Layers of an encoder or decoder whose parts were read."""
    layer.expect("norm_cfg", dict(type="LN"), because="transformer layers are normed by LayerNorm")
    num_layers = stack.count("num_layers")
    stack.leave_out("num_cp", "saves memory in training; results are the same")
    for part in (layer, stack):
        _leave_out_init(part)
        part.finish()
    return num_layers


def _finish_convolutions(part: Part, channels: int, *, positions: bool = True) -> int:
    """Groups of the GroupNorm behind the convolutions of a pixel decoder whose other parts were read."""
    norm = part.part("norm_cfg")
    if norm.content.get("type") != "GN":
        part.refuse("norm_cfg", f"{norm.content!r}: pixel decoders are normed by dict(type='GN', num_groups=...)")
    groups = norm.count("num_groups")
    norm.finish()
    _expect_relu(part)
    if positions:
        _expect_position(part.part("positional_encoding"), channels)
    _leave_out_init(part)
    part.finish()
    return groups


def _expect_position(part: Part, channels: int) -> None:
    part.defaults = _POSITION
    part.expect("num_feats", channels // 2, because="positions are as wide as the tokens, half for x and half for y")
    part.expect("normalize", True, because="sine positions are normalised")
    for key in ("temperature", "scale", "eps", "offset"):
        part.expect(key, _POSITION[key], because="sine positions have DETR's constants")
    _leave_out_init(part)
    part.finish()


def _expect_relu(part: Part) -> None:
    part.expect(
        "act_cfg", dict(type="ReLU"), dict(type="ReLU", inplace=True), dict(type="ReLU", inplace=False), because="ReLU"
    )


def _expect_one_dropout(layer: Part, rates: Sequence[float]) -> None:
    if len(set(rates)) > 1:
        layer.refuse("ffn_cfg.ffn_drop", f"attention and feed-forward networks drop {sorted(set(rates))}; expected one")


def _leave_out_init(part: Part) -> None:
    part.leave_out("init_cfg", "fresh weights start as in the official release")


def _criterion(head: Part, train: Part, num_classes: int) -> Config:
    criterion: Config = dict(
        type="mmseg_m2f.MaskCriterion",
        assigner=_assigner(train),
        loss_cls=_class_loss(head.part("loss_cls"), num_classes),
        loss_mask=head.part("loss_mask").choose(
            dict(CrossEntropyLoss=_bce_loss) if head.name == "Mask2FormerHead" else dict(FocalLoss=_focal_loss)
        ),
        loss_dice=head.part("loss_dice").choose(dict(DiceLoss=_dice_loss)),
        sampling=_sampling(train) if head.name == "Mask2FormerHead" else dict(type="mmseg_m2f.FullMaskSampling"),
    )
    train.part("sampler").choose(dict(MaskPseudoSampler=Part.finish))
    train.finish()
    return criterion


def _sampling(train: Part) -> Config:
    train.defaults = dict(num_points=12544, oversample_ratio=3.0, importance_sample_ratio=0.75)
    return dict(
        type="mmseg_m2f.PointSampling",
        num_points=train.count("num_points"),
        oversample=train.number("oversample_ratio"),
        importance=train.number("importance_sample_ratio"),
    )


def _assigner(train: Part) -> Config:
    assigner = train.part("assigner")
    if assigner.name != "HungarianAssigner":
        train.refuse("assigner.type", f"{assigner.content.get('type')!r}; expected HungarianAssigner")
    costs = assigner.take("match_costs")
    listed = [costs] if isinstance(costs, Mapping) else costs
    if not isinstance(listed, Sequence):
        assigner.refuse("match_costs", f"expected a list, got {costs!r}")
    known = dict(
        ClassificationCost=_class_cost,
        CrossEntropyLossCost=_bce_cost,
        DiceCost=_dice_cost,
        FocalLossCost=_focal_cost,
    )
    parts = [
        Part(cost, f"{assigner.path}.match_costs[{index}]", scope=train.scope, report=train.report)
        for index, cost in enumerate(listed)
    ]
    assigner.finish()
    return dict(type="mmseg_m2f.HungarianAssigner", match_costs=[part.choose(known) for part in parts])


def _class_cost(part: Part) -> Config:
    return _finished(part, dict(type="mmseg_m2f.ClassCost", weight=part.number("weight")))


def _bce_cost(part: Part) -> Config:
    part.expect("use_sigmoid", True, because="masks are binary")
    return _finished(part, dict(type="mmseg_m2f.MaskBCECost", weight=part.number("weight")))


def _dice_cost(part: Part) -> Config:
    part.defaults = dict(pred_act=False, naive_dice=True)
    part.expect("pred_act", True, because="Dice compares probabilities")
    part.expect("naive_dice", True, because="Dice is not squared here")
    return _finished(part, dict(type="mmseg_m2f.MaskDiceCost", weight=part.number("weight"), smooth=part.number("eps")))


def _focal_cost(part: Part) -> Config:
    part.expect("binary_input", True, because="masks are binary")
    part.expect("eps", 1e-12, because="focal costs are computed from logits")
    return _finished(
        part,
        dict(
            type="mmseg_m2f.MaskFocalCost",
            weight=part.number("weight"),
            alpha=part.number("alpha"),
            gamma=part.number("gamma"),
        ),
    )


def _class_loss(part: Part, num_classes: int) -> Config:
    weights = part.take("class_weight")
    part.defaults = dict(ignore_index=None, use_mask=False, avg_non_ignore=False)
    part.expect("use_sigmoid", False, because="classes exclude each other")
    part.expect("use_mask", False, because="this loss is for classes")
    part.expect("ignore_index", None, -100, because="each query has a class")
    part.expect("avg_non_ignore", False, because="each query has a class")
    part.expect("reduction", "mean", because="losses are averaged")
    if not isinstance(weights, Sequence) or len(weights) != num_classes + 1:
        part.refuse("class_weight", f"expected {num_classes} classes and 'no object', got {weights!r}")
    loss = dict(type="mmseg_m2f.ClassLoss", loss_weight=part.number("loss_weight"), no_object_weight=float(weights[-1]))
    if set(weights[:-1]) != {1}:
        loss["class_weight"] = [float(weight) for weight in weights[:-1]]
    return _finished(part, loss)


def _bce_loss(part: Part) -> Config:
    part.defaults = dict(ignore_index=None, class_weight=None, use_mask=False, avg_non_ignore=False)
    part.expect("use_sigmoid", True, because="masks are binary")
    part.expect("use_mask", False, because="masks are compared at points")
    part.expect("class_weight", None, because="masks are not weighted by class")
    part.expect("ignore_index", None, -100, because="void weighs nothing anyway")
    part.expect("avg_non_ignore", False, because="void weighs nothing anyway")
    part.expect("reduction", "mean", because="losses are averaged")
    return _finished(part, dict(type="mmseg_m2f.MaskBCELoss", loss_weight=part.number("loss_weight")))


def _focal_loss(part: Part) -> Config:
    part.expect("use_sigmoid", True, because="masks are binary")
    part.expect("activated", False, because="masks are logits")
    part.expect("reduction", "mean", because="losses are averaged")
    return _finished(
        part,
        dict(
            type="mmseg_m2f.MaskFocalLoss",
            loss_weight=part.number("loss_weight"),
            alpha=part.number("alpha"),
            gamma=part.number("gamma"),
        ),
    )


def _dice_loss(part: Part) -> Config:
    part.expect("use_sigmoid", True, because="masks are binary")
    part.expect("activate", True, because="Dice compares probabilities")
    part.expect("naive_dice", True, because="Dice is not squared here")
    part.expect("reduction", "mean", because="losses are averaged")
    return _finished(
        part,
        dict(type="mmseg_m2f.MaskDiceLoss", loss_weight=part.number("loss_weight"), smooth=part.number("eps")),
    )


def _finished(part: Part, config: Config) -> Config:
    part.finish()
    return config
