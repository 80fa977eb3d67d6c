"""The page of ``speecheq listen``: predictions for a microphone or a file, in the browser.

Gradio makes the page; nothing of it comes from the network, and no audio leaves the machine that serves it.
"""

import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from speecheq.common.errors import InputError, optional_package
from speecheq.common.log import log
from speecheq.features.speech_activity import NONE
from speecheq.inference.live import LiveStream
from speecheq.inference.prediction import Prediction
from speecheq.inference.predictor import Predictor
from speecheq.inference.whole_recording import wholes_of

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

LIVE_ROWS = 200  # of the running timeline
LIVE_SECONDS = 0.5  # of the microphone, sent at once
HOUR = 3600  # seconds after which a recording is deleted from the server
TIMELINE = ("from (s)", "to (s)", "emotion", "SEQM name", "EIS")


class PageContent(NamedTuple):
    """What the page shows of a recording."""

    summary: str
    posterior: dict[str, float]  # by class, of the whole recording; empty without speech
    timeline: list[list[Any]]  # a row for each segment, with the columns of TIMELINE


def predict_recording(predictor: Predictor, path: str | None) -> PageContent:
    """Predict the recording at ``path``. Raises InputError if it cannot be used, or none was given."""
    if not path:
        raise InputError("record something, or choose a file.")
    clips = predictor(path)
    (whole,) = wholes_of(clips, predictor.name_of)
    text = f"{whole.summary()}; the probabilities below are those of the whole recording."
    timeline = [timeline_row(clip) for clip in clips]
    return PageContent(clips[0].summary() if len(clips) == 1 else text, whole.posterior or {}, timeline)


def timeline_row(clip: Prediction) -> list[Any]:
    """The row of a segment, with the columns of TIMELINE."""
    eis = "" if clip.eis is None else round(clip.eis, 2)
    return [round(clip.start, 2), round(clip.end, 2), clip.emotion or clip.note, clip.name or "", eis]


class LiveTimeline:
    """What a microphone gives while it is recorded: the last segments, the newest first."""

    def __init__(self, predictor: Predictor, rate: int) -> None:
        self.rate, self._stream = rate, LiveStream(predictor, rate)
        self._last: Prediction | None = None
        self._rows: deque[list[Any]] = deque(maxlen=LIVE_ROWS)

    def add(self, samples: np.ndarray | None) -> PageContent:
        """Hear the next samples (S,) or (S, channels), as gradio gives them; None: the recording is over."""
        if samples is None:
            found = self._stream.finish()
        else:
            full_scale = -np.iinfo(samples.dtype).min if samples.dtype.kind == "i" else 1
            mono = samples.reshape(len(samples), -1).astype(np.float32).mean(axis=1, keepdims=True) / full_scale
            found = self._stream.add(mono.astype(np.float32))
        for clip in found:
            self._last = clip
            self._rows.appendleft(timeline_row(clip))
        last = self._last
        text = f"{self._stream.seconds:.1f} s" if last is None else f"at {last.start:.1f} s: {last.summary()}"
        return PageContent(text, (last and last.posterior) or {}, list(self._rows))


def page(predictor: Predictor, title: str) -> Any:
    """The page of one model, a gradio.Blocks. Programs reach its function at ``/predict``."""
    with optional_package("gradio", "speecheq listen", "utils/install.sh --extras listen"):
        import gradio

    def update(path: str | None) -> PageContent:
        try:
            return predict_recording(predictor, path)
        except InputError as error:
            # the copy on the server has a long path that its sender does not know
            raise gradio.Error(str(error).replace(str(path), Path(str(path)).name), print_exception=False) from error

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
        gradio.Markdown(
            f"# {title}\nSpeak, or choose a file. The prediction is a guess of a model, which knows the speakers and "
            "languages that it was trained on."
        )
        recording = gradio.Audio(sources=["microphone", "upload"], type="filepath", label="recording")
        text = gradio.Textbox(label="prediction", interactive=False)
        with gradio.Row():
            posterior = gradio.Label(label="emotion (ESC)")
            timeline = gradio.Dataframe(headers=list(TIMELINE), label="timeline", interactive=False)
        outputs = [text, posterior, timeline]
        if predictor.speech_activity != NONE:
            _add_microphone(gradio, predictor, outputs)
        recording.change(update, recording, outputs, api_visibility="private", show_progress="minimal")
        gradio.Button("Predict again").click(update, recording, outputs, api_name="predict")
    return blocks


def _add_microphone(gradio: Any, predictor: Predictor, outputs: list[Any]) -> None:
    """A microphone whose segments are answered while it records, with a timeline for each visitor."""

    def hear(audio: "tuple[int, np.ndarray] | None", live: LiveTimeline | None) -> tuple[Any, ...]:
        if audio is None:
            return live, *([gradio.skip()] * len(outputs))
        rate, samples = audio
        try:
            live = LiveTimeline(predictor, rate) if live is None or live.rate != rate else live
            return live, *live.add(samples)
        except InputError as error:
            raise gradio.Error(str(error), print_exception=False) from error

    def finish(live: LiveTimeline | None) -> tuple[Any, ...]:
        return None, *([gradio.skip()] * len(outputs) if live is None else live.add(None))

    with gradio.Accordion("live", open=False):
        gradio.Markdown("Each segment of speech is answered when a pause ends it.")
        microphone = gradio.Audio(sources=["microphone"], type="numpy", streaming=True, label="microphone, live")
    live = gradio.State(None)
    options = {"show_progress": "hidden", "api_visibility": "private"}
    microphone.start_recording(lambda: None, None, live, **options)
    microphone.stream(
        hear,
        [microphone, live],
        [live, *outputs],
        stream_every=LIVE_SECONDS,
        time_limit=None,
        concurrency_limit=None,
        **options,
    )
    microphone.stop_recording(finish, live, [live, *outputs], **options)


def serve(predictor: Predictor, title: str, host: str, port: int) -> None:
    """Serve the page until Ctrl-C. Raises InputError if the port is taken."""
    try:
        blocks = page(predictor, title)
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            footer_links=["api"],
            prevent_thread_lock=True,
        )
    except OSError as taken:
        raise InputError(f"the port {port} of {host} cannot be served ({taken}); choose one with --port.") from taken
    log.info("the page is at %s; Ctrl-C ends it", address)
    try:
        blocks.block_thread()
    finally:
        blocks.close()
