"""A page in the browser that says what a model hears, from the microphone or a file: ``speecheq listen``.

Gradio makes the page; nothing of it comes from the network, and no sound leaves the machine that serves it.
"""

import os
from pathlib import Path
from typing import Any

from speecheq.common.errors import InputError
from speecheq.common.log import log
from speecheq.inference.predictor import Prediction, Predictor
from speecheq.inference.recordings import SILENCE

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # else it calls home when it is imported

HOUR = 3600  # seconds: what was recorded or sent is deleted after one
TIMELINE = ("from (s)", "to (s)", "emotion", "SEQM name", "EIS")


def _gradio() -> Any:
    try:
        import gradio
    except ModuleNotFoundError as missing:
        raise InputError(
            f"speecheq listen needs gradio ({missing}); install it: utils/install.sh --extras listen."
        ) from missing
    return gradio


def in_words(prediction: Prediction) -> str:
    """What is said of one clip, in a line."""
    if prediction.posterior is None:
        return f"Nothing is said of {SILENCE}."
    parts = [f"{prediction.emotion} {prediction.posterior[prediction.emotion]:.2f}"]
    if prediction.eis is not None:
        parts = [f"{prediction.name}: {parts[0]}, EIS {prediction.eis:.2f} of 4"]
    if prediction.gender is not None:
        parts.append(f"gender {prediction.gender} {prediction.gender_posterior[prediction.gender]:.2f}")
    if prediction.note:
        parts.append(prediction.note)
    return "; ".join(parts)


def of_recording(predictor: Predictor, path: str | None) -> tuple[str, dict[str, float], list[list[Any]]]:
    """(in words, the posteriors, the timeline) of a recording; of several windows the posteriors are the mean.

    InputError where the recording cannot be used, or none was given.
    """
    if not path:
        raise InputError("record something, or choose a file.")
    clips = predictor(path)
    heard = [clip for clip in clips if clip.posterior is not None]
    names = predictor.labels.classes.names
    posterior = {name: sum(clip.posterior[name] for clip in heard) / len(heard) for name in names} if heard else {}
    words = (
        in_words(clips[0])
        if len(clips) == 1
        else (f"{len(clips)} windows, {len(clips) - len(heard)} of them {SILENCE}; the classes below are their mean.")
    )
    timeline = [
        [
            round(clip.start, 2),
            round(clip.end, 2),
            clip.emotion or clip.note,
            clip.name or "",
            "" if clip.eis is None else round(clip.eis, 2),
        ]
        for clip in clips
    ]
    return words, posterior, timeline


def page(predictor: Predictor, title: str) -> Any:
    """The page, a gradio.Blocks, of one model; its function is also at the address ``/predict``."""
    gradio = _gradio()

    def answer(path: str | None):
        try:
            return of_recording(predictor, path)
        except InputError as error:
            # the copy that was sent has a long name of its own, which tells its sender nothing
            raise gradio.Error(str(error).replace(str(path), Path(str(path)).name), print_exception=False) from error

    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(HOUR, HOUR)) as blocks:
        gradio.Markdown(
            f"# {title}\nSpeak, or choose a file. What is said of it is a guess of a model: it knows the "
            "speakers and languages that it was trained on."
        )
        sound = gradio.Audio(sources=["microphone", "upload"], type="filepath", label="recording")
        words = gradio.Textbox(label="what it hears", interactive=False)
        with gradio.Row():
            posterior = gradio.Label(label="emotion (ESC)")
            timeline = gradio.Dataframe(headers=list(TIMELINE), label="timeline", interactive=False)
        sound.change(answer, sound, [words, posterior, timeline], api_name=False, show_progress="minimal")
        gradio.Button("Predict again").click(answer, sound, [words, posterior, timeline], api_name="predict")
    return blocks


def serve(predictor: Predictor, title: str, host: str, port: int) -> None:
    """Serve the page until Ctrl-C; InputError where the port is taken."""
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
        raise InputError(f"the port {port} of {host} cannot be served ({taken}); name another with --port.") from taken
    log.info("the page is at %s; Ctrl-C ends it", address)
    try:
        blocks.block_thread()
    finally:
        blocks.close()
