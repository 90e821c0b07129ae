import torch

from mmseg_m2f.core.transfer import download, upload
from tests.operator_counts import OperatorCount


def test_upload__one_copy_to_another_device_and_none_at_home():
    values = torch.arange(6).view(2, 3)
    with OperatorCount() as counted:
        assert upload(values, torch.device("meta")).device.type == "meta"
        assert upload(values, torch.device("cpu")) is values
    assert counted.uploads == [(2, 3)]


def test_download__values_on_the_host():
    assert download(torch.arange(3)).tolist() == [0, 1, 2]
