from mmseg_m2f.analysis.error_table import ErrorRow, ErrorTable

TABLE = ErrorTable("PQ", 0.5, "segments", [ErrorRow("class", 3, 0.625), ErrorRow("missed", 1200, 0.75)])


def test_error_table__shows_what_costs_most_first() -> None:
    lines = TABLE.text().splitlines()
    assert lines[0] == "PQ 0.5000"
    assert lines[2].split() == ["missed", "1,200", "0.7500", "+0.2500"]
    assert lines[3].split() == ["class", "3", "0.6250", "+0.1250"]


def test_error_table__csv() -> None:
    assert TABLE.csv().splitlines() == [
        "error,segments,PQ_if_mended,gain",
        "class,3,0.625,0.125",
        "missed,1200,0.75,0.25",
    ]
