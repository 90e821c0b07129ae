from mmseg_m2f.benchmark.summary import summarise


def test_summarise__medians_of_ratios_and_not_ratios_of_medians() -> None:
    rounds = [
        {"ours": {"step": ours}, "other": {"step": other}} for ours, other in ((1.0, 4.0), (2.0, 2.0), (3.0, 6.0))
    ]
    summary = summarise(rounds, ["ours", "other"])
    assert summary["seconds"] == {"ours": {"step": 2.0}, "other": {"step": 4.0}}
    assert summary["ratios"] == {"other": {"step": dict(median=0.5, least=0.25, most=1.0)}}
