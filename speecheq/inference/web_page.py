"""The page of ``speecheq listen``: predictions for a microphone or a file, in the browser.

Gradio makes the page; nothing of it comes from the network, and no audio leaves the machine that serves it.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from speecheq.common.errors import InputError, optional_package
from speecheq.common.log import log
from speecheq.inference.predictor import Predictor
from speecheq.inference.whole_recording import wholes_of

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

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
    timeline: list[list[Any]] = []
    for clip in clips:
        eis = "" if clip.eis is None else round(clip.eis, 2)
        timeline.append([round(clip.start, 2), round(clip.end, 2), clip.emotion or clip.note, clip.name or "", eis])
    return PageContent(clips[0].summary() if len(clips) == 1 else text, whole.posterior or {}, timeline)


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
        recording.change(update, recording, outputs, api_visibility="private", show_progress="minimal")
        gradio.Button("Predict again").click(update, recording, outputs, api_name="predict")
    return blocks


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
