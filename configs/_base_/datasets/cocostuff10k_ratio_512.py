# COCO-Stuff 10k: the classes of the 164k version, label 0 is void. Sizes are drawn from a continuous range: short side
# 256...1024, 512 x 512 crops.
_base_ = "./cocostuff164k_512.py"
from mmseg_m2f.config.recipes import draw_ratio, label_map_pipelines, loaders, resize

data_root = "data/coco_stuff10k"
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    _base_.crop_size, draw=draw_ratio((2048, 512)), test_resize=[resize((2048, 512))]
)
train_dataloader, val_dataloader, test_dataloader = loaders(
    train_pipeline,
    test_pipeline,
    both=dict(data_root=data_root, reduce_zero_label=True),
    train=dict(data_prefix=dict(img_path="images/train2014", seg_map_path="annotations/train2014")),
    val=dict(data_prefix=dict(img_path="images/test2014", seg_map_path="annotations/test2014")),
)
