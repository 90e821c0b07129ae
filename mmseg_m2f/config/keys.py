"""Top-level keys of a config that somebody reads after its files are loaded."""

#: Dicts that mmengine's Runner builds parts from.
RUNNER_KEYS = (
    *("model", "data_preprocessor", "train_dataloader", "val_dataloader", "test_dataloader"),
    *("train_cfg", "val_cfg", "test_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"),
    *("val_evaluator", "test_evaluator", "default_hooks", "custom_hooks", "visualizer", "log_processor"),
    *("model_wrapper_cfg", "strategy", "env_cfg"),
)
#: Plain values that the Runner reads.
RUNNER_VALUES = (
    *("work_dir", "load_from", "resume", "launcher", "log_level", "default_scope", "randomness"),
    *("experiment_name", "custom_imports", "sync_bn", "find_unused_parameters", "runner_type"),
    *("activation_checkpointing", "efficient_conv_bn_eval", "compile"),
)
#: Read by our tools and by mmseg's.
TOOL_KEYS = ("tta_model", "tta_pipeline", "test_pipeline")
#: Read by our launcher: False leaves out the checks before the first batch, or the report of a training run.
OWN_KEYS = ("preflight", "report")
READ_KEYS = frozenset({*RUNNER_KEYS, *RUNNER_VALUES, *TOOL_KEYS, *OWN_KEYS})
