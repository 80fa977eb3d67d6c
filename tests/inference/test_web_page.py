"""The page for microphone and files, served and asked over HTTP as a browser asks."""

import signal
import socket
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
from speech_like import RATE, hiss, silence, speech_like

from speecheq.cli import main
from speecheq.cluster.run_task import free_port
from speecheq.common.errors import InputError
from speecheq.inference.predictor import Predictor
from speecheq.inference.web_page import LiveTimeline, page, predict_recording
from speecheq.inference.windows import Windows

gradio = pytest.importorskip("gradio", reason="gradio is not installed (utils/install.sh --extras listen)")


@pytest.fixture(scope="module")
def ask(predictor):
    """A function of a path: what the page answers to it."""
    import gradio_client

    blocks = page(predictor, "a test")
    _, address, _ = blocks.launch(share=False, ssr_mode=False, quiet=True, prevent_thread_lock=True)
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    yield lambda path: client.predict(path and gradio_client.handle_file(str(path)), api_name="/predict")
    client.close()
    blocks.close()


def test_the_page_answers_as_the_predictor(ask, predictor, write_noise, tmp_path):
    wav = write_noise(tmp_path / "noise of a test.wav", 1.5)
    words, posterior, timeline = ask(wav)
    (clip,) = predictor(wav)
    assert words == clip.summary()
    assert posterior["label"] == clip.emotion
    shown = {entry["label"]: entry["confidence"] for entry in posterior["confidences"]}
    assert shown == pytest.approx(clip.posterior, abs=1e-6)
    assert timeline["data"] == [[0.0, 1.5, clip.emotion, clip.name, round(clip.eis, 2)]]


def test_a_long_recording_gets_a_timeline_and_the_answer_for_all_of_it(predictor, write_noise, tmp_path):
    wav = write_noise(tmp_path / "long.wav", 31)
    words, posterior, timeline = predict_recording(predictor, str(wav))
    clips = predictor(wav)
    assert len(clips) > 5 and f" s in {len(clips)} segments; " in words
    for name in posterior:
        mean = np.average([clip.posterior[name] for clip in clips], weights=[clip.end - clip.start for clip in clips])
        assert posterior[name] == pytest.approx(mean)
    assert [line[:2] for line in timeline] == [[round(clip.start, 2), round(clip.end, 2)] for clip in clips]


def test_the_live_microphone_answers_segments_when_they_end(experiment):
    predictor = Predictor(experiment / "best.pt", "cpu", windows=Windows(into="speech"), speech_activity="energy")
    samples = np.concatenate((silence(0.5), speech_like(2), silence(2), speech_like(1.5), silence(0.3)))
    samples = samples + hiss(len(samples) / RATE, -70)
    live, pages = LiveTimeline(predictor, RATE), []
    for first in range(0, len(samples), RATE // 2):
        pages.append(live.add((samples[first : first + RATE // 2] * 32767).astype(np.int16)))
    ended = live.add(None)
    assert pages[0].summary == "0.5 s" and not pages[4].timeline and len(pages[-1].timeline) == 1
    clips = predictor(samples, RATE)
    assert [row[:2] for row in ended.timeline] == [[round(one.start, 2), round(one.end, 2)] for one in clips[::-1]]
    assert ended.posterior == pytest.approx(clips[-1].posterior, abs=1e-3)
    assert any(part["type"] == "accordion" for part in page(predictor, "a test").config["components"])


def test_silence(ask, write_noise, tmp_path):
    words, posterior, timeline = ask(write_noise(tmp_path / "silence.wav", 1, level=0))
    assert words == "silence" and not posterior.get("confidences")
    assert timeline["data"] == [[0.0, 1.0, "silence", "", ""]]


def test_bad_input_is_one_sentence(ask, tmp_path):
    text = tmp_path / "text.wav"
    text.write_text("no sound\n")
    with pytest.raises(Exception, match="text.wav: .*") as refused:
        ask(text)
    assert "/" not in str(refused.value).split("text.wav")[0] and "Traceback" not in str(refused.value)
    with pytest.raises(Exception, match="record something, or choose a file"):
        ask(None)


def test_a_port_that_is_taken_is_named(experiment, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main.main(["listen", "--model", str(experiment / "best.pt"), "--port", str(port)]) == 1
    assert f"the port {port} of 127.0.0.1 cannot be served" in capsys.readouterr().err


def test_the_command_serves_the_model_of_the_package_until_ctrl_c():
    port = free_port()
    command = [sys.executable, "-m", "speecheq.cli", "listen", "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        try:
            for line in serving.stderr:  # ends with the process
                if f"the page is at http://127.0.0.1:{port}/" in line:
                    break
            assert "SpeechEQ" in urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).read().decode()
            serving.send_signal(signal.SIGINT)
            assert serving.wait(60) == 0
        finally:
            serving.kill()


def test_without_gradio_it_says_what_to_install(predictor, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(InputError, match="--extras listen"):
        page(predictor, "a test")
