# Weights & Biases without an account or a network: `wandb sync FOLDER` sends a run later. Needs the extra `trackers`.
vis_backend = dict(type="mmengine.WandbVisBackend", init_kwargs=dict(mode="offline", project="mmseg_m2f"))
