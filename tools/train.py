"""Train what a config describes."""

import argparse
import os

from mmengine.config import DictAction

from mmseg_m2f.engine.launch import concise_errors, train

EXAMPLES = """examples:
  python tools/train.py configs/mask2former/mask2former_r18_shapes_debug.py
  python tools/train.py CONFIG --cfg-options data_root=/data/ade backbone=swin_t train_dataloader.batch_size=4
  python tools/train.py CONFIG --resume
  torchrun --nproc_per_node 8 tools/train.py CONFIG --launcher pytorch
  srun -N 1 --ntasks-per-node 8 --gres gpu:8 python tools/train.py CONFIG --launcher slurm
"""


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="a leaf of configs/, or a config of your own")
    parser.add_argument("--work-dir", help="folder of checkpoints and logs; default work_dirs/<config name>")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        metavar="CHECKPOINT",
        help="continue from the newest complete checkpoint of the work folder, or from the given one",
    )
    parser.add_argument("--amp", action="store_true", help="mixed precision, on a GPU")
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the batch size, from the config's auto_scale_lr.base_batch_size",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        default={},
        metavar="KEY=VALUE",
        help="override settings; data_root=PATH reaches every dataset, backbone=NAME takes another ingredient",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local-rank", "--local_rank", type=int, default=0, help="set by older launchers")
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    with concise_errors():
        train(
            args.config,
            args.cfg_options,
            work_dir=args.work_dir,
            resume=args.resume,
            amp=args.amp,
            auto_scale_lr=args.auto_scale_lr,
            launcher=args.launcher,
        )


if __name__ == "__main__":
    main()
