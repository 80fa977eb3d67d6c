"""How recordings are cut along their speech."""

from speecheq.inference.windows import NO_SPEECH, TOO_SHORT, Span, Windows

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
    spans = Windows().follow(speech, 60 * RATE, RATE)
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
