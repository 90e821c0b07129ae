import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest

from mmseg_m2f.benchmark.large_command import measure_large


@pytest.mark.slow
def test_measure_large__memory_does_not_grow_with_the_image(tmp_path):
    # 20,000² pixels must take less than 2 GB: at most 5 bytes for a pixel, beside 64 MB for a window.
    options = {"backbone": "r18_from_scratch", "num_queries": 5, "model.test_cfg.return_scores": False}
    sizes = dict(size=3000, window=256, overlap=32)
    with ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn")
    ) as process:  # resident memory is its own
        report = process.submit(
            measure_large, "mask2former_r18_shapes_demo", options, **sizes, out_dir=tmp_path
        ).result()
    assert report["peak_mb"] < 64 + 5 * 3000**2 / 2**20
    assert (tmp_path / "results" / "large_labels.tif").exists()
