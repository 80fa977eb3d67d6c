"""The page of speecheq align: what is spoken when, at any length, with names as they are and none left out unsaid."""

import base64
import re
import warnings

import pytest

from speecheq.inference import align_page
from speecheq.inference.align_page import LINE_SECONDS, MOST_SECONDS, as_page, draw
from speecheq.inference.alignment import AlignedPhone, Alignment, durations_of

CJK = "你<i>&"


def alignment(seconds, eis=2.5, words=("one", CJK)):
    """A pause, then two phones a word, all of equal length."""
    step = seconds / (2 * len(words) + 1)
    phones = [AlignedPhone("sil", 0.0, step, None)]
    for number in range(2 * len(words)):
        phones.append(AlignedPhone(f"p{number}", (number + 1) * step, (number + 2) * step, number // 2))
    return Alignment(phones, list(words), seconds, -1.0), [eis] * len(phones)


def pictures(page):
    return [base64.b64decode(text).decode() for text in re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', page)]


@pytest.mark.parametrize("seconds, lines", [(0.5, 1), (5.0, 1), (5.2, 2), (12.0, 3)])
def test_a_picture_has_each_phone_and_word_where_it_is_spoken(seconds, lines):
    found, _ = alignment(seconds)
    eis = [1.0, 2.0, 3.0, 4.0, 0.0]
    figure = draw(found, eis)
    assert len(figure.axes) == lines
    for number, axes in enumerate(figure.axes):
        begin, end = number * LINE_SECONDS, (number + 1) * LINE_SECONDS
        assert axes.get_xlim() == (begin, end)
        spans = [(start, stop) for _, start, stop in found.word_spans()] + [phone[1:3] for phone in found.phones]
        edges = [path.vertices[:, 0] for band in axes.collections for path in band.get_paths()]
        expected = [(max(a, begin), min(b, end)) for a, b in spans if a < end and b > begin]
        assert [(at.min(), at.max()) for at in edges] == [pytest.approx(span) for span in expected]
        (curve,) = axes.get_lines()
        values = {(phone.start + phone.end) / 2: value for phone, value in zip(found.phones, eis)}
        assert all(values[at] == value for at, value in zip(*curve.get_data()))
        assert {at for at in values if begin <= at <= end} <= set(curve.get_xdata())
    shown = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert shown == {"one", CJK, "sil", "p0", "p1", "p2", "p3"}
    assert not draw(found, [None] * 5).axes[0].get_lines()


def test_the_page_holds_all_that_was_found_and_nothing_from_elsewhere():
    found = {"b <script>alert(1)</script>": alignment(2.0), "a": alignment(7.0)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of characters that the font here lacks
        page = as_page(found, ["x <b>.wav: has no text."])
    assert "<script" not in page and "b &lt;script&gt;alert(1)&lt;/script&gt;</h2>" in page
    assert "<li>x &lt;b&gt;.wav: has no text.</li>" in page
    assert page.index("<h2>a</h2>") < page.index("<h2>b &lt;") and "2 recordings, 9.0 s." in page
    first, second = pictures(page)
    assert "你&lt;i&gt;&amp;" in first and ">p3<" in second
    assert not re.search(r"(src|href)=.(http|/)", page) and "only" not in page and "are drawn" not in page
    rows = re.findall(r"<tr><td>(p\d)</td><td class=\"number\">(\d+)</td>\s*<td class=\"number\">([\d.]+)", page)
    assert rows == [(f"p{number}", "2", "0.900") for number in range(4)]  # of 0.4 and 1.4 s
    assert "width: 20.00em" in page and as_page(found, []) == as_page(found, [])


def test_of_many_recordings_the_page_says_how_many_are_drawn(monkeypatch):
    monkeypatch.setattr(align_page, "MOST_SECONDS", 5.0)
    found = {f"r{number}": alignment(2.0) for number in range(4)}
    page = as_page(found, [])
    assert len(pictures(page)) == 2 and "The first 2 by name are drawn, up to 5 s; phones.tsv has all." in page
    assert '<td class="number">4</td>' in page  # the durations are those of all
    assert len(pictures(as_page({"long": alignment(9.0)}, []))) == 1  # one at least, as long as it is
    assert MOST_SECONDS >= 60


def test_a_model_without_eis():
    page = as_page({"a": alignment(2.0, None)}, [])
    assert "predicts no EIS" in page and "EIS 0" not in pictures(page)[0] and "EIS 0" not in page
    assert "EIS 0" in pictures(as_page({"a": alignment(2.0)}, []))[0]


def test_durations_of_phones():
    (first, *_), (again, *_) = alignment(2.0), alignment(7.0)
    found = durations_of([first, again])
    assert [one.phone for one in found] == ["p0", "p1", "p2", "p3"]
    assert found[0][1:] == pytest.approx((2, 0.9, 0.5, 0.4, 1.4))
