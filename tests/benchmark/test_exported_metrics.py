from mmseg_m2f.benchmark.exported_metrics import write_images


def test_write_images__of_generated_scenes(tmp_path):
    dataset = dict(type="mmseg_m2f.GeneratedShapes", length=3, image_size=(32, 40))
    write_images(dict(type="mmengine.RepeatDataset", times=2, dataset=dataset), tmp_path / "a", count=5, scope=None)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["00000.png", "00001.png", "00002.png"]
