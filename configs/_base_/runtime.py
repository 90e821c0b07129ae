# Everything around model, data and schedule: hooks, logging, seed, environment.
custom_imports = dict(imports=["mmseg_m2f"])  # for mmseg's own tools; ours import it anyway

default_hooks = dict(
    runtime_info=dict(type="mmseg_m2f.DeferredRuntimeInfo"),  # reads losses when they are logged, not every time
    timer=dict(type="mmengine.IterTimerHook"),
    logger=dict(type="mmengine.LoggerHook", interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type="mmengine.ParamSchedulerHook"),
    checkpoint=dict(
        type="mmengine.CheckpointHook",
        by_epoch=False,
        interval=5000,
        max_keep_ckpts=2,
        save_best="mIoU",
        rule="greater",
        backend_args=dict(backend="mmseg_m2f.atomic"),  # an interrupted run leaves no half-written file
    ),
    sampler_seed=dict(type="mmengine.DistSamplerSeedHook"),
)
custom_hooks = []  # the tools add the checks and the report; preflight = False, report = False leave them out
log_processor = dict(by_epoch=False)
log_level = "INFO"
tta_model = dict(type="mmseg_m2f.SemanticTTA")

load_from = None
resume = False
randomness = dict(seed=0)  # a fixed one also fixes the order of the data, which resuming relies on
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
