from mvpose.bench.clips.compare import Comparison, Line
from mvpose.bench.clips.estimators import Trained
from mvpose.bench.clips.tables import format_comparison, format_lines


def test_lines_show_the_spread_over_seeds_and_the_paper_beneath(score):
    scores = (score([2, 2], [0, 0]), score([2, 3], [0, 0]))  # ex@1 100 and 50 %
    text = format_lines(
        [Line("insynformer-hxe", "Ours", scores, Trained(100, 64, 1e-3), None)], paper=True
    ).splitlines()
    assert text[1].split()[:6] == ["Ours", "100", "64", "0.001", "2", "75.0±35.4"]
    assert text[2].split()[:5] == ["the", "paper", "on", "IFID", "80.86"]
    plain = format_lines([Line("sesyn", "Sesyn", (score([2]),), Trained(100), None)], paper=False).splitlines()
    assert plain[1].split()[1:9] == ["100", "–", "–", "1", "100.0", "100.0", "–", "–"] and len(plain) == 2


def test_each_row_stands_in_its_tables(score):
    def line(name):
        return Line(name, name, (score([2], [0]),), None, None)

    names = ("synnet-ce", "synnet-hxe", "sesyn", "insynformer-ce", "insynformer-hxe", "oracle")
    text = format_comparison(Comparison(False, 8, tuple(map(line, names)), ()))
    first, second = text.split("Table 1")[1].split("Table 2")
    rows = [
        [row.split()[0] for row in table.splitlines() if row.split()[:1] and row.split()[0] in names]
        for table in (first, second)
    ]
    assert rows == [
        ["synnet-hxe", "sesyn", "insynformer-hxe", "oracle"],
        ["synnet-ce", "synnet-hxe", "insynformer-ce", "insynformer-hxe"],
    ]
