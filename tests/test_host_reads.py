import torch

from tests.host_reads import count


def test_count__sees_each_kind_of_reading() -> None:
    values = torch.arange(3)
    with count() as reads:
        values.cpu()
        values.unique()
        values[values > 1]
        float(values.sum())
        values + 1
    assert reads.host_reads == {"cpu": 1, "_unique2": 1, "index": 1, "_local_scalar_dense": 1}
    with count() as reads:
        values[1:] * 2
    assert not reads.host_reads
