"""Sentences of our own in Mandarin, English and German.

Lines are numbered texts for corpora in which every speaker says the same; the generators give endless others.
"""

import random
from collections.abc import Callable, Iterator, Sequence

# Mandarin words that pypinyin and espeak-ng read differently are avoided, so that a transcript's phones are what
# is spoken. (espeak-ng has no syllable xiong2: it spells 熊 and 雄 out in English.)

MANDARIN_LINES = (
    "明天我去上海", "他买两张车票", "雨水打湿窗户", "姐姐打开那封信", "火车马上出发",
    "孩子跑进院子", "桌上放三本书", "医生走出病房", "他说出那句话", "今晚大家见面",
    "哥哥找到钥匙", "我们赢下比赛", "谁拿走我的雨伞", "电话又响两声", "小船离开海岸",
    "黄狗跟我回家", "妹妹唱起民歌", "飞机穿过云层", "邻居搬去南京", "我听见脚步声",
)  # fmt: skip

MANDARIN_WHO = (
    "我们", "他们", "老师", "医生", "同学", "弟弟", "朋友", "司机", "记者", "青年", "邻居", "工人", "厨师", "队员",
)  # fmt: skip
MANDARIN_WHEN = (
    "今天", "昨天", "明年", "清晨", "半夜", "周末", "春天", "刚才", "上午", "夏季", "月底", "最近",
)  # fmt: skip
MANDARIN_ACTION = (
    "喝 咖啡", "买 苹果", "修 汽车", "写 报告", "看 电影", "吃 面条", "挂 地图", "唱 民歌", "打扫 房间", "讨论 问题",
    "访问 工厂", "练习 书法", "栽 白菜", "骑 摩托", "寄 包裹", "洗 毛巾", "准备 午饭", "采访 警察", "测量 温度",
    "翻译 小说", "购买 股票", "推开 车门", "抓住 绳子", "烧 热水", "拍摄 彩虹", "训练 球队", "赢下 冠军", "提高 速度",
    "关闭 旅馆", "游览 欧洲", "保护 森林", "研究 宇宙", "搬运 木材", "挖掘 煤矿", "缩短 距离", "培育 兰花", "恢复 供应",
    "品尝 月饼", "尊敬 军人", "穿 雨鞋",
)  # fmt: skip

# The accent of the first line tells the encodings of Western text files apart.
ENGLISH_LINES = (
    "The café is closed today", "My sister opened the window", "We met him by the river", "The train leaves at noon",
    "She found a letter inside", "They moved the piano upstairs", "Somebody left the lights on",
    "He bought two blue chairs", "Our dog slept all morning", "I hear music next door",
    "The children built a boat", "You can see the harbor",
)  # fmt: skip

# Names that CMUdict lacks, so that the way around the dictionary is walked too.
INVENTED_NAMES = ("Brindlewick", "Torvane", "Oskerby")
ENGLISH_WHO = (
    "my sister", "the doctor", "our teacher", "his brother", "the farmer", "a stranger", "the captain", "her uncle",
    "the children", "my neighbor", "the old lady",
) + INVENTED_NAMES  # fmt: skip
ENGLISH_WHEN = (
    "today", "this morning", "last night", "at noon", "after dinner", "in winter", "before dawn", "yesterday",
    "in May", "once more",
)  # fmt: skip
ENGLISH_ACTION = (
    "opened the window", "sold a brown horse", "found the other key", "washed both cups", "painted the fence",
    "caught three fish", "joined the choir", "measured the yard", "heard a strange noise", "wrote a long letter",
    "broke the blue vase", "watched the ship leave", "fed the young goat", "lost a leather glove",
    "played the violin", "carried the heavy box", "planted yellow roses", "repaired the roof",
    "climbed the steep hill", "baked fresh bread", "told a funny story", "counted the coins", "drew a little house",
    "missed the early train", "enjoyed the voyage", "shouted with joy", "cleaned the dusty shelf",
    "thanked the judge", "chose a sharp knife", "pushed the wooden door", "visited the museum",
    "followed the narrow path",
)  # fmt: skip

GERMAN_LINES = (
    "Die Tür bleibt heute offen", "Meine Schwester wohnt am Hafen", "Er sucht seinen blauen Schal",
    "Wir fahren morgen ans Meer", "Das Buch liegt im Regal", "Der Zug kommt um sieben", "Sie malt den alten Zaun",
    "Gestern hat es geregnet", "Die Kinder bauen ein Boot", "Niemand kennt diesen Weg",
)  # fmt: skip


def _unrepeated(actions: Sequence[str], compose: Callable[[str], str], rng: random.Random) -> Iterator[str]:
    """Endless different sentences; every action occurs before one comes again."""
    seen = set()
    while True:
        for action in rng.sample(actions, len(actions)):
            sentence = compose(action)
            if sentence not in seen:
                seen.add(sentence)
                yield sentence


def mandarin_sentences(rng: random.Random) -> Iterator[str]:
    """Endless different Mandarin sentences, words separated by spaces."""

    def compose(action: str) -> str:
        who, when = rng.choice(MANDARIN_WHO), rng.choice(MANDARIN_WHEN)
        return f"{when} {who} {action}" if rng.random() < 0.5 else f"{who} {when} {action}"

    return _unrepeated(MANDARIN_ACTION, compose, rng)


def english_sentences(rng: random.Random) -> Iterator[str]:
    """Endless different English sentences without punctuation."""

    def compose(action: str) -> str:
        who, when = rng.choice(ENGLISH_WHO), rng.choice(ENGLISH_WHEN)
        sentence = f"{when} {who} {action}" if rng.random() < 0.5 else f"{who} {action} {when}"
        return sentence[0].upper() + sentence[1:]

    return _unrepeated(ENGLISH_ACTION, compose, rng)
