# Mask DINO for label maps: learnt queries, three levels, "no object" as a further class.
_base_ = "./mask_dino.py"
model = dict(
    type="mmseg_m2f.MaskSegmentor",
    decode_head=dict(
        pixel_decoder=dict(num_extra_levels=0, feedforward_channels=1024),
        query_decoder=dict(num_queries=100, select=False, class_activation="softmax"),
        criterion=dict(loss_cls=dict(type="mmseg_m2f.ClassLoss", loss_weight=4.0, no_object_weight=0.1)),
    ),
)
