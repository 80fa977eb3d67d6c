"""Mini corpora: small synthetic stand-ins in the official layouts, so that every recipe runs without any download.

espeak-ng speaks Mandarin sentences of our own. A speaker is one of its voice variants with a pitch; an
emotion is a direction away from neutral in pitch, pitch range, rate and volume, followed the further the
higher the level, so that category (ESC) and intensity (EIS) can both be learned. The scores that a model
reaches on these clips show that a recipe works and nothing else.
"""

import ctypes
import random
import shutil
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Tuple, Union

import numpy as np

from speecheq.errors import InputError
from speecheq.files import read_json, whole_folder, write_json
from speecheq.progress import Progress
from speecheq.seqm import CATEGORIES, EMOTIONS, LEVELS, NEUTRAL

SIZES = ("mini", "nano")
SAMPLE_RATE = 16000
# Written beside the corpus: it says what the folder is, and that it may be written anew.
MARKER = "synthesised.json"


class Prosody(NamedTuple):
    """A direction away from neutral; each part is about -1 to 1."""

    pitch: float
    pitch_range: float
    rate: float
    volume: float


# At high intensity. The directions stay apart without the volume, which feature normalisation may remove.
DIRECTIONS: Dict[str, Prosody] = {
    NEUTRAL: Prosody(0.0, 0.0, 0.0, 0.0),
    "trust": Prosody(-0.5, -0.9, 0.5, -0.2),
    "joy": Prosody(0.8, 0.8, 0.3, 0.4),
    "anticipation": Prosody(0.3, -0.4, -1.0, 0.3),
    "anger": Prosody(-0.1, 1.0, 0.9, 1.0),
    "disgust": Prosody(-1.0, 0.7, -0.3, 0.5),
    "sadness": Prosody(-0.7, -0.8, -1.0, -0.9),
    "surprise": Prosody(1.0, 1.0, -0.7, 0.1),
    "fear": Prosody(0.8, -0.8, 0.9, -0.6),
}
LEVEL_SCALE: Dict[str, float] = dict(zip(LEVELS, (0.4, 0.7, 1.0)))
JITTER = 0.06  # standard deviation of each part of a clip's prosody

# Neutral speech in the units of espeak-ng, and how far a step of 1 goes.
PITCH_STEP = 32  # around the speaker's own pitch
PITCH_RANGE, PITCH_RANGE_STEP = 52, 36  # never flat: Mandarin needs its tones
RATE, RATE_OCTAVES = 220, 0.5  # words a minute
VOLUME, VOLUME_DB = 40, 7.0

MARGIN = 0.08  # seconds of silence kept before and after the speech
FLOOR = 1e-4  # standard deviation of the noise floor; digital silence occurs in no recording
PEAK = 0.95


class Speaker(NamedTuple):
    """``gender`` (F or M) is that of the espeak-ng ``variant``; ``pitch`` is 0 to 99, 50 the variant's own.

    Variants with a `breath` line (f2, f3 and f5, say) start from memory that espeak-ng never sets: they sound
    different in every process and cannot be used here.
    """

    name: str
    gender: str
    variant: str
    pitch: int = 50


class Clip(NamedTuple):
    path: str
    text: str
    speaker: Speaker
    prosody: Prosody


class Plan(NamedTuple):
    """A corpus before it is spoken: its clips, its text files (path -> content) and its counts."""

    clips: List[Clip]
    files: Dict[str, str]
    counts: Dict[str, int]


def emotional_prosody(category: str, scale: float, jitter: random.Random) -> Prosody:
    """The prosody of a clip: the category's direction times ``scale`` (1 at high intensity), with jitter."""
    return Prosody(*(scale * part + jitter.gauss(0.0, JITTER) for part in DIRECTIONS[category]))


# --- Sentences. Words that pypinyin and espeak-ng read differently are avoided, so that a transcript's phones are
# what is spoken. (espeak-ng has no syllable xiong2: it spells 熊 and 雄 out in English.)

CASIA_SENTENCES = (
    "明天我去上海", "他买两张车票", "雨水打湿窗户", "姐姐打开那封信", "火车马上出发",
    "孩子跑进院子", "桌上放三本书", "医生走出病房", "他说出那句话", "今晚大家见面",
    "哥哥找到钥匙", "我们赢下比赛", "谁拿走我的雨伞", "电话又响两声", "小船离开海岸",
    "黄狗跟我回家", "妹妹唱起民歌", "飞机穿过云层", "邻居搬去南京", "我听见脚步声",
)  # fmt: skip

WHO = (
    "我们", "他们", "老师", "医生", "同学", "弟弟", "朋友", "司机", "记者", "青年", "邻居", "工人", "厨师", "队员",
)  # fmt: skip
WHEN = (
    "今天", "昨天", "明年", "清晨", "半夜", "周末", "春天", "刚才", "上午", "夏季", "月底", "最近",
)  # fmt: skip
ACTION = (
    "喝 咖啡", "买 苹果", "修 汽车", "写 报告", "看 电影", "吃 面条", "挂 地图", "唱 民歌", "打扫 房间", "讨论 问题",
    "访问 工厂", "练习 书法", "栽 白菜", "骑 摩托", "寄 包裹", "洗 毛巾", "准备 午饭", "采访 警察", "测量 温度",
    "翻译 小说", "购买 股票", "推开 车门", "抓住 绳子", "烧 热水", "拍摄 彩虹", "训练 球队", "赢下 冠军", "提高 速度",
    "关闭 旅馆", "游览 欧洲", "保护 森林", "研究 宇宙", "搬运 木材", "挖掘 煤矿", "缩短 距离", "培育 兰花", "恢复 供应",
    "品尝 月饼", "尊敬 军人", "穿 雨鞋",
)  # fmt: skip


def sentences(rng: random.Random) -> Iterator[str]:
    """Endless different sentences, words separated by spaces; every action occurs before one comes again."""
    seen = set()
    while True:
        for action in rng.sample(ACTION, len(ACTION)):
            who, when = rng.choice(WHO), rng.choice(WHEN)
            sentence = f"{when} {who} {action}" if rng.random() < 0.5 else f"{who} {when} {action}"
            if sentence not in seen:
                seen.add(sentence)
                yield sentence


# --- Corpora

CASIA_SPEAKERS = (
    Speaker("liuchanhg", "F", "f4"),
    Speaker("wangzhe", "M", "m3"),
    Speaker("zhaoquanyin", "F", "linda", 44),
    Speaker("ZhaoZuoxiang", "M", "m7", 46),
)
CASIA_EMOTIONS = {
    "angry": "anger", "fear": "fear", "happy": "joy", "neutral": NEUTRAL, "sad": "sadness", "surprise": "surprise",
}  # fmt: skip


def plan_casia(size: str, rng: random.Random) -> Plan:
    """``casia/<speaker>/<emotion>/<201..>.wav``, every text by every speaker in every emotion."""
    texts = CASIA_SENTENCES[: {"mini": 10, "nano": 3}[size]]
    clips = [
        Clip(f"casia/{speaker.name}/{emotion}/{number}.wav", text, speaker, emotional_prosody(category, 1.0, rng))
        for speaker in CASIA_SPEAKERS
        for emotion, category in CASIA_EMOTIONS.items()
        for number, text in enumerate(texts, start=201)
    ]
    counts = {"speakers": len(CASIA_SPEAKERS), "emotions": len(CASIA_EMOTIONS), "texts": len(texts)}
    return Plan(clips, {}, counts)


AISHELL_SPEAKERS = {
    "train": (
        Speaker("S0002", "F", "f1", 44),
        Speaker("S0003", "M", "m2"),
        Speaker("S0004", "F", "Annie"),
        Speaker("S0005", "M", "m4", 54),
    ),
    "dev": (Speaker("S0724", "F", "aunty"), Speaker("S0725", "M", "Lee")),
    "test": (Speaker("S0764", "M", "m8"), Speaker("S0765", "F", "steph", 44)),
}
# size -> part -> (speakers, utterances of each)
AISHELL_SIZES = {
    "mini": {"train": (4, 24), "dev": (2, 20), "test": (2, 20)},
    "nano": {"train": (3, 6), "dev": (1, 4), "test": (1, 4)},
}
AISHELL_FIRST_UTTERANCE = 122


def plan_aishell(size: str, rng: random.Random) -> Plan:
    """AISHELL-1: ``data_aishell/wav/<part>/<speaker>``, the segmented transcript and ``speaker.info``."""
    clips, transcript, info = [], [], []
    counts = {"speakers": 0, "train": 0, "dev": 0, "test": 0}
    texts = sentences(rng)
    for part, (speakers, utterances) in AISHELL_SIZES[size].items():
        for speaker in AISHELL_SPEAKERS[part][:speakers]:
            info.append(f"{speaker.name[1:]} {speaker.gender}\n")
            for number in range(AISHELL_FIRST_UTTERANCE, AISHELL_FIRST_UTTERANCE + utterances):
                utterance, text = f"BAC009{speaker.name}W{number:04d}", next(texts)
                path = f"data_aishell/wav/{part}/{speaker.name}/{utterance}.wav"
                clips.append(Clip(path, text.replace(" ", ""), speaker, emotional_prosody(NEUTRAL, 0.0, rng)))
                transcript.append(f"{utterance} {text}\n")
            counts[part] += utterances
        counts["speakers"] += speakers
    files = {
        "data_aishell/transcript/aishell_transcript_v0.8.txt": "".join(transcript),
        "resource_aishell/speaker.info": "".join(info),
    }
    return Plan(clips, files, counts)


SEQD_SPEAKERS = (
    Speaker("F01", "F", "f1"),
    Speaker("M01", "M", "m1", 56),
    Speaker("F02", "F", "belinda", 44),
    Speaker("M02", "M", "m6"),
)
SEQD_COLUMNS = ("utt", "speaker", "gender", "emotion", "category", "level", "split", "text")


def plan_seqd(size: str, rng: random.Random) -> Plan:
    """``wav/<speaker>/<utterance>.wav`` and ``labels.tsv``: the 25 emotions of SEQM.

    Of each emotion the last clip is in the test split; in nano only one emotion of each category has one,
    their levels taking turns.
    """
    clips, rows, counts = [], ["\t".join(SEQD_COLUMNS)], {"speakers": len(SEQD_SPEAKERS), "train": 0, "test": 0}
    clips_each = {"mini": 8, "nano": 3}[size]
    texts = sentences(rng)
    for place, (name, category, level, _) in enumerate(EMOTIONS.values()):
        turn = LEVELS[CATEGORIES.index(category) % len(LEVELS)]
        tested = size == "mini" or level in (None, turn)
        for number in range(1, clips_each + 1):
            speaker = SEQD_SPEAKERS[(place + number) % len(SEQD_SPEAKERS)]
            utterance, text = f"{speaker.name}_{name}_{number:02d}", next(texts).replace(" ", "")
            split = "test" if tested and number == clips_each else "train"
            prosody = emotional_prosody(category, LEVEL_SCALE[level] if level else 0.0, rng)
            clips.append(Clip(f"wav/{speaker.name}/{utterance}.wav", text, speaker, prosody))
            rows.append("\t".join((utterance, speaker.name, speaker.gender, name, category, level or "-", split, text)))
            counts[split] += 1
    return Plan(clips, {"labels.tsv": "\n".join(rows) + "\n"}, counts)


# corpus -> its plan for a size; further corpora are added here
CORPORA: Dict[str, Callable[[str, random.Random], Plan]] = {
    "casia": plan_casia,
    "aishell": plan_aishell,
    "seqd": plan_seqd,
}


# --- Speaking

# Of espeak-ng's speak_lib.h
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _CHARACTERS, _OK = 2, 0x8000, 1, 1, 0
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Voice:
    """espeak-ng through ctypes; use it as a context manager.

    The library keeps the state of its pitch flutter and noise in static memory that even its own
    initialisation leaves as it is. Each Voice therefore loads a copy of the library, which starts from
    scratch: the same calls give the same samples, however often the process has synthesised before.
    InputError where the `demo` extra is absent or the library does not load.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise _extra_absent(error) from error
        library = Path(espeakng_loader.get_library_path())
        folder = tempfile.mkdtemp()
        try:
            self._library = ctypes.CDLL(shutil.copy(library, folder))
        except OSError as error:
            raise InputError(f"{library}: espeak-ng does not load ({error}); reinstall espeakng-loader.") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what is loaded stays loaded
        self._chunks: List[np.ndarray] = []
        self._callback = _CALLBACK(self._collect)  # held here, or it would be freed while in use
        data = str(espeakng_loader.get_data_path()).encode()
        self.sample_rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if self.sample_rate <= 0:
            raise InputError(f"{library}: espeak-ng did not start on its data; reinstall espeakng-loader.")
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> "Voice":
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._library.espeak_Terminate()

    def _collect(self, samples, count: int, events) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str, speaker: Speaker, prosody: Prosody) -> np.ndarray:
        """Speak Mandarin ``text``; int16 samples at ``self.sample_rate``.

        RuntimeError where the library refuses the speaker's variant or returns no sound.
        """
        parameters = {
            _RATE: RATE * 2.0 ** (RATE_OCTAVES * prosody.rate),
            _VOLUME: VOLUME * 10.0 ** (VOLUME_DB * prosody.volume / 20),
            _PITCH: speaker.pitch + PITCH_STEP * prosody.pitch,
            _RANGE: PITCH_RANGE + PITCH_RANGE_STEP * prosody.pitch_range,
        }
        # Setting a voice resets its parameters, so it comes first.
        if self._library.espeak_SetVoiceByName(f"cmn+{speaker.variant}".encode()) != _OK:
            raise RuntimeError(f"espeak-ng has no Mandarin voice with the variant {speaker.variant}")
        for parameter, value in parameters.items():
            highest = 99 if parameter in (_PITCH, _RANGE) else 450
            self._library.espeak_SetParameter(parameter, min(max(round(value), 0), highest), 0)
        self._chunks.clear()
        spoken = text.encode()
        status = self._library.espeak_Synth(
            spoken, ctypes.c_size_t(len(spoken) + 1), 0, _CHARACTERS, 0, _UTF8, None, None
        )
        if status != _OK or not self._chunks:
            raise RuntimeError(f"espeak-ng returned no sound for {text!r} (status {status})")
        return np.concatenate(self._chunks)


def _extra_absent(error: ImportError) -> InputError:
    return InputError(f"Synthesising needs the package {error.name}, which is absent; install the extra `demo`.")


def _recorded(samples: np.ndarray, rate: int, noise: np.random.Generator) -> np.ndarray:
    """int16 at ``rate`` -> float at 16 kHz below PEAK, silence trimmed to MARGIN, over a faint noise floor."""
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise _extra_absent(error) from error
    divisor = np.gcd(SAMPLE_RATE, rate)
    signal = resample_poly(samples / 32768.0, SAMPLE_RATE // divisor, rate // divisor)
    loud = np.flatnonzero(np.abs(signal) > 0.01 * np.abs(signal).max())
    signal = np.pad(signal[loud[0] : loud[-1] + 1], round(MARGIN * SAMPLE_RATE))
    signal = signal + noise.normal(0.0, FLOOR, len(signal))
    return signal * min(1.0, PEAK / np.abs(signal).max())


def _check_choice(kind: str, value: str, choices: Tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"The {kind} {value!r} is unknown; choose one of {', '.join(choices)}.")


def _check_replaceable(out_dir: Path, corpus: str) -> None:
    """InputError unless ``out_dir`` is new, empty or an earlier mini version of ``corpus``: it gets replaced."""
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir}: is not a folder; name a new one for the mini corpus {corpus}.")
    if not out_dir.is_dir() or not any(out_dir.iterdir()):
        return
    marker = out_dir / MARKER
    if not marker.is_file() or read_json(marker).get("corpus") != corpus:
        raise InputError(
            f"{out_dir}: holds something other than the mini corpus {corpus}, which would replace it; "
            "name a new or empty folder."
        )


def synthesise(corpus: str, out_dir: Union[str, Path], size: str = "mini", seed: int = 0) -> Dict[str, int]:
    """Write the mini version of ``corpus`` to the folder ``out_dir``, in the official layout; return its counts.

    ``size`` is ``mini`` (for the demo) or ``nano`` (the smallest that a whole recipe works on, for tests).
    The audio is 16 kHz, mono, 16 bit. The same ``seed`` gives the same bytes. The folder appears whole or not
    at all. InputError for an unknown corpus or size, a folder that holds something else, or where the extra
    `demo` is not installed.
    """
    _check_choice("mini corpus", corpus, tuple(CORPORA))
    _check_choice("size", size, SIZES)
    out_dir = Path(out_dir)
    _check_replaceable(out_dir, corpus)
    import soundfile

    rng = random.Random(f"{corpus} {seed}")
    plan = CORPORA[corpus](size, rng)
    counts = {**plan.counts, "clips": len(plan.clips)}
    title = f"synthesise {corpus} ({size})"
    with Voice() as voice, whole_folder(out_dir) as folder, Progress(title, len(plan.clips), "clips") as shown:
        noise = np.random.default_rng(rng.getrandbits(64))
        for clip in plan.clips:
            path = folder / clip.path
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = voice.say(clip.text, clip.speaker, clip.prosody)
            soundfile.write(path, _recorded(samples, voice.sample_rate, noise), SAMPLE_RATE, subtype="PCM_16")
            shown.update()
        for name, content in plan.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        write_json(folder / MARKER, {"corpus": corpus, "size": size, "seed": seed, "counts": counts})
    return counts
