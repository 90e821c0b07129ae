import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmseg_m2f.benchmark.heads import running
from mmseg_m2f.benchmark.heads.budget import Budget
from mmseg_m2f.benchmark.heads.running import Failure, Run, perform_all, prepare_runs
from tests.benchmark.heads.conftest import LEAVES, SMALL
from tests.command_line import ROOT, environment


def test_prepare_runs__one_folder_per_config_and_seed(tmp_path):
    runs = prepare_runs(
        [str(ROOT / leaf) for leaf in LEAVES], [0, 1], Budget(2, crop=(64, 64), options=SMALL), tmp_path
    )
    assert [(run.name, run.seed) for run in runs] == [(Path(leaf).stem, seed) for leaf in LEAVES for seed in (0, 1)]
    assert len({run.config for run in runs}) == 4
    cfg = Config.fromfile(runs[3].config)
    assert cfg.randomness.seed == 1
    assert tuple(cfg.val_dataloader.dataset.image_size) == (64, 64)
    again = Budget(2, crop=(64, 64), options=SMALL)
    assert prepare_runs([str(ROOT / leaf) for leaf in LEAVES], [0, 1], again, tmp_path) == runs
    with pytest.raises(ValueError, match="expected nothing, or a run under the same budget .* Give another --out"):
        prepare_runs([str(ROOT / LEAVES[0])], [0], Budget(3, options=SMALL), tmp_path)


def test_prepare_runs__names_the_config_at_fault(tmp_path):
    leaf = str(ROOT / LEAVES[1])
    with pytest.raises(FileNotFoundError, match="Config configs/none.py: expected an existing file"):
        prepare_runs(["configs/none.py"], [0], Budget(2), tmp_path)
    with pytest.raises(TypeError, match=r"shapes_debug.py: model.backbone.width: ContextCluster takes no argument"):
        prepare_runs([leaf], [0], Budget(2, options={"model.backbone.width": 3}), tmp_path)
    with pytest.raises(ValueError, match="expected each once"):
        prepare_runs([leaf, leaf], [0], Budget(2), tmp_path)


def test_prepare_runs__refuses_an_evaluator_without_a_score(tmp_path):
    options = {"test_evaluator": dict(_delete_=True, type="mmengine.DumpResults", out_file_path="x.pkl")}
    with pytest.raises(ValueError, match=r"shapes_debug.py: test_evaluator: expected a metric that reports one of"):
        prepare_runs([str(ROOT / LEAVES[1])], [0], Budget(2, options=options), tmp_path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_perform_all__a_signal_ends_the_worker_as_well(tmp_path, monkeypatch, name):
    def unexpected(*_):
        raise AssertionError("the signal ended the whole program")

    before = signal.signal(signal.SIGTERM, unexpected)
    slow_to_end = (
        "import os, signal, sys, time\n"
        "def end(*_):\n    time.sleep(1)\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "print('Iter(train) [ 5/10] loss: 0.5', flush=True)\n"
        "time.sleep(60)"
    )
    monkeypatch.setattr(running, "_command", lambda *_, **__: [sys.executable, "-c", slow_to_end])

    def say(text: str) -> None:
        if "train 5" in text:
            os.kill(os.getpid(), getattr(signal, name))

    try:
        with pytest.raises(KeyboardInterrupt):
            perform_all([Run("a", "a.py", 0, tmp_path / "a")], num_images=1, processes=1, say=say)
        assert signal.getsignal(signal.SIGTERM) is unexpected
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_writing__one_process_at_a_time(tmp_path):
    run = Run("a", "a.py", 0, tmp_path / "a")
    other = (
        "import sys, pathlib\nfrom mmseg_m2f.benchmark.heads.running import writing\n"
        "with writing(pathlib.Path(sys.argv[1])):\n    print('writing', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", other, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        try:
            assert process.stdout.readline() == b"writing\n"
            with pytest.raises(ValueError, match=rf"a: expected a run .* that process {process.pid} is at. Wait"):
                perform_all([run], num_images=1, processes=1, say=print)
        finally:
            process.kill()
    with running.writing(run.folder):  # what a killed process leaves is no hindrance
        assert (run.folder / "lock").read_text() == f"{os.getpid()}\n"


def test_perform_all__skips_the_finished_and_goes_on_after_a_failure(tmp_path, runs, monkeypatch):
    fresh = [Run(name, f"{name}.py", 0, tmp_path / name) for name in ("bad", "good")]

    def command(run, *, num_images, processes):
        assert (num_images, processes) == (3, 2)
        failing = "print('Iter(train) [ 5/10] lr: 1.0  eta: 0:00:07  loss: 0.5  x: 1'); print('why'); exit(3)"
        passing = f"open({str(run.result)!r}, 'w').write('x')"
        return [sys.executable, "-c", failing if run.name == "bad" else passing]

    monkeypatch.setattr(running, "_command", command)
    for run in fresh:
        run.folder.mkdir()
    said: list[str] = []
    (failure,) = perform_all([runs[0], *fresh], num_images=3, processes=2, say=said.append)
    assert failure == Failure(fresh[0], 3, ("Iter(train) [ 5/10] lr: 1.0  eta: 0:00:07  loss: 0.5  x: 1", "why"))
    assert said[0] == "[1/3] a, seed 0: finished before"
    assert "  train 5 of 10, eta 0:00:07, loss 0.5" in said
    assert "    why" in said
    assert fresh[1].result.exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "Iter(train) [ 50/800]  lr: 1e-3  eta: 1 day, 0:00:07  loss: 0.5  loss_cls: 2",
            "train 50 of 800, eta 1 day, 0:00:07, loss 0.5",
        ),
        ("Iter(val) [16/16]    coco/segm_mAP: 0.25  coco/segm_mAP_50: 0.5  time: 1", "val, segm_mAP 0.25"),
        ("Iter(test) [10/16]  eta: 0:00:01  time: 1", None),
        ("Saving checkpoint at 50 iterations", None),
    ],
)
def test_progress__of_a_line(line, expected):
    assert running._progress(f"11/20 20:44:06 - mmengine - INFO - {line}") == expected


def test_command__one_process_per_gpu(tmp_path):
    run = Run("a", "x/a.py", 0, tmp_path)
    one, two = (running._command(run, num_images=6, processes=count) for count in (1, 2))
    assert one[1:4] == ["-m", "mmseg_m2f.benchmark.heads.worker", str(tmp_path.with_suffix(".py"))]
    assert two[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert two[-2:] == ["--launcher", "pytorch"]
