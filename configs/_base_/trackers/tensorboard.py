# Curves in TensorBoard: `tensorboard --logdir work_dirs`. Needs the extra `trackers`.
vis_backend = dict(type="mmengine.TensorboardVisBackend")
