# For a data ingredient of one's own: the pipelines of `ade20k_512.py`, and by name the transforms that read its files.
_base_ = "./common.py"
from mmseg_m2f.config.recipes import draw_short_side, label_map_pipelines, resize

crop_size = (512, 512)
train_pipeline, test_pipeline, tta_pipeline = label_map_pipelines(
    crop_size, draw=draw_short_side(512), test_resize=[resize((2048, 512))]
)
load_image, load_labels = train_pipeline[:2]
data_preprocessor = dict(size=crop_size)
