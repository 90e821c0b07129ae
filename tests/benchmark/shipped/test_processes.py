import logging
import os
import signal

import torch

from mmseg_m2f.benchmark.shipped import processes
from mmseg_m2f.benchmark.shipped.outcomes import import_libraries
from mmseg_m2f.benchmark.shipped.processes import Limits, StageResult, run_limited


def test_run_limited__gives_what_the_work_returns(tmp_path):
    log = tmp_path / "log"
    result, returned = run_limited(lambda: (os.write(1, b"said"), dict(number=3))[1], log, Limits())
    assert (result, returned) == (StageResult(), dict(number=3))
    assert "said" in log.read_text()
    assert list(tmp_path.iterdir()) == [log]


def test_run_limited__names_the_served_operators_and_the_reason(tmp_path):
    import_libraries()
    from mmcv.ops import nms

    def work():
        boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3]])
        nms(boxes, torch.tensor([0.5, 0.6]), 0.5)
        logging.getLogger("mmseg_m2f").info("something else")
        raise KeyError("no such thing")

    assert run_limited(work, tmp_path / "log", Limits())[0] == StageResult("KeyError: 'no such thing'", ("nms",))


def test_run_limited__ends_what_takes_too_long(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "_PATIENCE", 1000)  # machines that test are busy

    def spin():
        while True:
            pass

    result, _ = run_limited(spin, tmp_path / "log", Limits(seconds=0.5))
    assert result.reason == "more than 0 s of a processor"


def test_run_limited__ends_what_takes_too_much_memory(tmp_path):
    result, _ = run_limited(lambda: bytearray(2**34), tmp_path / "log", Limits(gigabytes=4.0))
    assert result.reason == "MemoryError"


def test_run_limited__says_by_which_signal_a_process_ended(tmp_path):
    result, _ = run_limited(lambda: os.kill(os.getpid(), signal.SIGTERM), tmp_path / "log", Limits())
    assert result.reason == "ended by signal 15: more than 12 GB of memory, or a crash"
