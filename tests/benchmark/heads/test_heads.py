"""Runs of two tiny configs, and what is made of them."""

import base64
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS
from PIL import Image

from mmseg_m2f.benchmark.heads import running
from mmseg_m2f.benchmark.heads.budget import Budget
from mmseg_m2f.benchmark.heads.page import page
from mmseg_m2f.benchmark.heads.running import Failure, Run, perform_all, prepare_runs
from mmseg_m2f.benchmark.heads.score_table import Spread, as_json, markdown, notes, summarise, table
from mmseg_m2f.benchmark.heads.worker import perform
from tests.command_line import ROOT, environment, run_tool

SMALL = {
    "train_dataloader.batch_size": 2,
    "train_dataloader.dataset.length": 4,
    **{f"{loop}_dataloader.num_workers": 0 for loop in ("val", "test")},
    **{f"{loop}_dataloader.persistent_workers": False for loop in ("val", "test")},
    **{f"{loop}_dataloader.dataset.length": 2 for loop in ("val", "test")},
}
LEAVES = [
    "configs/mask2former/mask2former_r18_shapes_debug.py",
    "configs/context_cluster/semantic-fpn_coc_tiny_shapes_debug.py",
]


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tools/benchmark.py", *arguments])
        try:
            runpy.run_path(str(ROOT / "tools/benchmark.py"), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    return run


class Page(HTMLParser):
    """Images, headings and cells of a page; complains about tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[tuple[str, Image.Image]] = []
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [value for name, value in attrs if name in ("src", "href") and not value.startswith("data:")]
        if tag == "img":
            data = base64.b64decode(found["src"].partition(",")[2])
            self.images.append((found["alt"], Image.open(BytesIO(data)).convert("RGB")))
        elif tag not in ("meta", "wbr"):
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]][-1] += data


def write_result(folder: Path, name: str, seed: int, score: float, **changes: object) -> Run:
    """A finished run whose pictures are plain: input grey, truth green, prediction red."""
    run = Run(name, f"configs/{name}.py", seed, folder / name / f"seed-{seed}")
    files = dict(input=(128, 128, 128), truth=(0, 255, 0), prediction=(255, 0, 0))
    (run.folder / "pictures").mkdir(parents=True)
    for which, colour in files.items():
        Image.new("RGB", (32, 24), colour).save(run.folder / f"pictures/{which}.png")
    kinds = dict(semantic=dict(truth="pictures/truth.png", prediction="pictures/prediction.png"))
    result = dict(
        batch=8,
        processes=1,
        data=dict(type="GeneratedShapes", images=2, classes=8),
        metrics={"mIoU": score, "aAcc": 0.9},
        scores={"mIoU": score},
        history=[dict(iteration=at, scores={"mIoU": score * at / 20}) for at in (10, 20)],
        costs=dict(
            parameters=2_500_000,
            multiply_adds=3_000_000_000,
            image_size=[96, 96],
            latency_s=0.01 + seed,
            step_s=0.2,
            step_bytes=50e6,
            device="CPU",
        ),
        pictures=[dict(index=0, name="scene <0>", input="pictures/input.png", kinds=kinds)],
    )
    run.result.write_text(json.dumps(result | changes))
    return run


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two heads: one with two seeds, one that reports percent."""
    return [
        write_result(tmp_path, "a", 0, 0.6),
        write_result(tmp_path, "a", 2, 0.8),
        write_result(tmp_path, "b", 0, 0.9, metrics={"mIoU": 90.0}),
    ]


def test_summary__scores_and_costs_over_seeds(runs):
    first, second = summarise(runs)
    assert first.seeds == [0, 2]
    assert first.scores == {"mIoU": Spread(pytest.approx(0.7), 0.6, 0.8, 2)}
    assert second.scores == {"mIoU": Spread(0.9, 0.9, 0.9, 1)}
    assert first.costs.latency_s == pytest.approx(1.01)
    assert first.curves["mIoU"].iterations == [10, 20]
    assert [spread.least for spread in first.curves["mIoU"].spreads] == [0.3, 0.6]
    header, cells = table([first, second])
    assert header[:3] == ["head", "mIoU", "parameters, M"]
    assert cells[0] == ["a", "0.700 (0.600…0.800)", "2.50", "3", "0.2", "50", "1.01e+03"]
    assert cells[1][:2] == ["b", "0.900"]
    assert json.loads(json.dumps(as_json(first)))["scores"]["mIoU"]["most"] == 0.8


def test_summary__markdown_is_a_table(runs):
    lines = markdown(summarise(runs), ["a remark"]).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1
    assert lines[2].startswith("| a | 0.700")
    assert lines[-1] == "- a remark"


def test_summary__says_what_is_not_comparable(tmp_path, runs):
    assert notes(summarise(runs)) == []
    other = dict(type="ADE20KDataset", images=2000, classes=150)
    runs.append(write_result(tmp_path, "c", 0, 0.5, batch=2, data=other))
    data, batch = notes(summarise(runs))
    assert data == (
        "Not comparable: tested on different data: GeneratedShapes, 2 images, 8 classes (a, b); "
        "ADE20KDataset, 2000 images, 150 classes (c)"
    )
    assert "batches: 8 (a, b); 2 (c)" in batch


def test_summary__batch_of_several_processes(tmp_path, runs):
    runs.append(write_result(tmp_path, "c", 0, 0.5, processes=2))
    (batch,) = notes(summarise(runs))
    assert batch.endswith("batches: 8 (a, b); 8 in each of 2 processes, memory of one, (c)")


def test_summary__refuses_another_file(runs):
    runs[1].result.write_text('{"metrics": {}}')
    with pytest.raises(ValueError, match=r"seed-2/result.json: expected the result of a run .* Delete the file"):
        summarise(runs)


def test_page__holds_table_charts_pictures_and_failures(runs):
    failed = Failure(Run("c", "configs/c.py", 0, runs[0].folder.parent), 2, ("Traceback", "KeyError: <x>"))
    text = page(summarise(runs), [failed], title="T <1>", remarks=["r & s"], warnings=["Not comparable: x"])
    found = Page(text)
    assert found.links == []
    assert found.texts["h1"] == ["T <1>"]
    assert found.texts["h2"] == [
        "Scores and costs",
        "Accuracy over cost",
        "Learning curves",
        "The same images, semantic",
        "Failed runs",
    ]
    assert found.texts["pre"] == ["Traceback\nKeyError: <x>"]
    assert "0.700 (0.600…0.800)" in found.texts["td"]
    assert "scene <0>" in found.texts["td"]
    names = [name for name, _ in found.images]
    assert names == ["accuracy over cost", "learning curves", "input", "truth", "a", "b"]
    colours = [np.asarray(image)[12, 16].tolist() for _, image in found.images[2:]]
    np.testing.assert_allclose(colours, [[128] * 3, [0, 255, 0], [255, 0, 0], [255, 0, 0]], atol=6)
    assert '<td class="best">0.900</td>' in text
    assert re.search(r"<td>0\.700", text)


def test_page__of_failures_alone():
    failed = Failure(Run("c", "c.py", 0, Path("out")), 1, ("why",))
    assert Page(page([], [failed], title="T", remarks=[], warnings=[])).texts["h2"] == ["Failed runs"]


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


def test_heads__two_heads_from_training_to_page(tmp_path, run_main, monkeypatch, capsys):
    def in_this_process(command, log, say):
        perform(command[command.index("mmseg_m2f.benchmark.heads.worker") + 1], num_images=2)
        return 0

    monkeypatch.setattr(running, "_perform", in_this_process)
    out = tmp_path / "heads"
    options = [f"{key}={value}" for key, value in SMALL.items()]
    arguments = ["heads", *(str(ROOT / leaf) for leaf in LEAVES), "--iterations", "2", "--crop", "64", "64"]
    arguments += ["--validations", "2", "--out", str(out), "--cfg-options", *options]
    assert run_main(*arguments) == 0
    content = json.loads((out / "heads.json").read_text())
    assert [row["name"] for row in content["rows"]] == [Path(leaf).stem for leaf in LEAVES]
    for row in content["rows"]:
        assert 0 <= row["scores"]["mIoU"]["mean"] <= 1
        assert row["curves"]["mIoU"]["iterations"] == [1, 2]
        # The last validation and the test look at the same scenes with the same weights.
        assert row["curves"]["mIoU"]["spreads"][1]["mean"] == pytest.approx(row["scores"]["mIoU"]["mean"], abs=1e-6)
        assert row["setting"]["image_size"] == [64, 64]
        assert min(row["costs"][name] for name in ("step_s", "latency_s", "multiply_adds")) > 0
    assert content["rows"][1]["costs"]["parameters"] == number_of_parameters(LEAVES[1])
    found = Page((out / "heads.html").read_text())
    names = [name for name, _ in found.images]
    heads = [Path(leaf).stem for leaf in LEAVES]
    assert names[2:] == [name for name in ("input", "truth", *heads) for _ in range(2)]
    assert all(image.width == 256 for _, image in found.images[2:])
    lines = (out / "heads.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {name}" for name in heads]
    assert re.fullmatch(r"- Tested on GeneratedShapes, \d+ images, 8 classes; seeds 0\.", lines[6])
    assert lines[-1].endswith(shlex.join(arguments))
    capsys.readouterr()
    (out / heads[1] / "seed-0/result.json").unlink()  # as if it had been interrupted after its last checkpoint
    assert run_main(*arguments) == 0
    assert capsys.readouterr().out.count("finished before") == 1
    resumed = json.loads((out / "heads.json").read_text())
    assert [row["scores"] for row in resumed["rows"]] == [row["scores"] for row in content["rows"]]
    assert resumed["rows"][1]["curves"] == content["rows"][1]["curves"]


def number_of_parameters(leaf: str) -> int:
    return sum(p.numel() for p in MODELS.build(Config.fromfile(ROOT / leaf).model).parameters())


def test_heads__help_shows_examples(run_main, capsys):
    assert run_main("heads", "--help") == 0
    shown = capsys.readouterr().out
    assert "python tools/benchmark.py heads A.py B.py" in shown
    assert "Run it again after an interruption" in shown


@pytest.mark.slow
@pytest.mark.e2e
def test_heads__as_processes_with_one_that_fails(tmp_path):
    options = [f"{key}={value}" for key, value in SMALL.items()]
    broken = Config.fromfile(ROOT / LEAVES[1])
    broken.test_evaluator = dict(type="mmseg_m2f.MaskAP")  # of a head that gives label maps alone
    broken.dump(tmp_path / "broken.py")
    arguments = ["heads", str(tmp_path / "broken.py"), LEAVES[1], "--iterations", "2", "--out", str(tmp_path / "out")]
    done = run_tool("benchmark", *arguments, "--cfg-options", *options, expect=1)
    assert "[1/2] broken, seed 0: FAILED with exit status 2" in done.stdout
    assert "in the sample, got" in done.stdout
    assert "train 2 of 2" in done.stdout
    content = json.loads((tmp_path / "out/heads.json").read_text())
    assert [row["name"] for row in content["rows"]] == [Path(LEAVES[1]).stem]
    assert [failure["name"] for failure in content["failed"]] == ["broken"]
    assert "Failed runs" in (tmp_path / "out/heads.html").read_text()
