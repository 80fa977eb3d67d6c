"""How recordings are cut along their speech."""

import pytest

from speecheq.common.errors import InputError
from speecheq.inference.windows import LONGEST_STRETCH, NO_SPEECH, SPEECH, TOO_SHORT, WINDOWS, Span, Windows

RATE = 100


def seconds(*spans):
    """The same in samples: (start, end) of each."""
    return [(round(start * RATE), round(end * RATE)) for start, end in spans]


def test_a_recording_that_is_not_cut_is_one_clip_without_long_pauses():
    speech = seconds((1, 2), (3.9, 4), (7, 8))
    (span,) = Windows().follow(speech, 10 * RATE, RATE)
    assert span == Span(100, 700, seconds((4, 7)), 2.1)


def test_windows_begin_where_speech_begins():
    speech = seconds((3, 5), (9, 24), (30, 30.2))
    spans = Windows(into=WINDOWS).follow(speech, 60 * RATE, RATE)
    assert [(span.first, span.frames) for span in spans] == [
        (300, 200),
        (900, 600),
        (1200, 600),
        (1500, 600),
        (1800, 600),
        (3000, 20),
    ]
    assert [span.speech for span in spans] == [2, 6, 6, 6, 6, 0.2]
    assert [span.note for span in spans] == ["", "", "", "", "", TOO_SHORT]
    assert not any(span.pauses for span in spans)


def test_short_pauses_stay_in_a_window_and_do_not_count_as_speech():
    (span,) = Windows(4).follow(seconds((1, 2), (2.5, 4)), 10 * RATE, RATE)
    assert (span.first, span.frames, span.pauses, span.speech) == (100, 300, [], 2.5)


def test_no_speech_is_said():
    assert Windows().follow([], 50 * RATE, RATE) == [Span(0, 50 * RATE, [], 0.0, NO_SPEECH)]


def test_too_little_speech_has_no_class():
    for pieces in (seconds((1, 1.2)), seconds((1, 1.1), (1.5, 1.6))):
        (span,) = Windows().follow(pieces, 3 * RATE, RATE)
        assert span.note == TOO_SHORT and span.speech == 0.2


def test_recordings_are_cut_into_their_speech():
    speech = [(0, 20), (25, 40), (60, 90)]  # at 10 Hz
    cut = Windows(into=SPEECH, pause=1.0).follow(speech, 100, 10)
    assert [(span.first, span.frames, span.speech) for span in cut] == [(0, 40, 3.5), (60, 30, 3.0)]
    assert [span[:2] for span in Windows(into=SPEECH, pause=0.4).follow(speech, 100, 10)] == [
        (0, 20),
        (25, 15),
        (60, 30),
    ]
    assert len(Windows().follow(speech, 100, 10)) == 1, "short recordings are cut only where that is asked for"
    assert [span[:2] for span in Windows().follow(speech, 301, 10)] == [(0, 40), (60, 30)]
    assert [span[:2] for span in Windows(into=WINDOWS).follow(speech, 301, 10)][0] == (0, 60)


def test_long_stretches_are_divided_at_their_longest_pauses_else_in_equal_parts():
    limit, cut = round(LONGEST_STRETCH * 10), Windows(into=SPEECH, pause=1.0)
    speech = [(0, 5), (14, 80), (86, 150), (152, 220)]
    assert [span[:2] for span in cut.follow(speech, 400, 10)] == [(0, 80), (86, 134)], "not behind the first 0.5 s"
    parts = cut.follow([(0, 2 * limit + 30)], 400, 10)
    assert len(parts) == 3 and max(span.frames for span in parts) <= limit
    assert all(a.first + a.frames == b.first for a, b in zip(parts, parts[1:]))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"into": "halves"}, "cannot be cut into 'halves'; choose auto, speech, windows"),
        ({"into": SPEECH, "length": 3}, "a window or speech, not both"),
        ({"pause": 0.0}, "a pause of 0 s is not possible"),
    ],
)
def test_what_recordings_cannot_be_cut_into(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Windows(**options)
