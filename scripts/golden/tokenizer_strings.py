"""Random strings that are hard on tokenizers, the same for the same seed.

Used by tokenizer_golden.py (stored vectors) and tokenizer_random.py (comparison by hand).
"""
import random

WORDS = ("the of and to in a is that it was for on are as with his they at be this from have or by one had not but what all "
         "were when we there can an your which their said if do will each about how up out them then she many some so these "
         "would other into has more her two like him see time could no make than first been its who now people my made over "
         "Hello WORLD HTTPResponse snake_case x1 y22 3.14 2026 1,000 don't I'll they've it's IT'S we'd 'tis").split()
# Pieces at the borders of the patterns: white space of every kind, contractions, digits of other scripts, marks.
ODD = (" ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", " \n", "\u00a0", "\u3000", "\u2028", "\u0085", "\u1680", "\u200b", "\u200d", "\ufeff",
       "'s", "'S", "'\u017f", "'ll", "'LL", "'re", "'", "\u2019s", "0", "12", "123", "1234", "\u0663", "\u0969", "\u00bd", "\u2167", "\u00b2",
       "\u0301", "e\u0301", "\u0323\u0307", "\u1100\u1161\u11a8", "\uac00\u11a8", "\u0958", "\u212b", "\ufb01", "\u0344", "\u2adc",
       "\U0001f600", "\U0001f469\u200d\U0001f52c", "\U0001f1e9\U0001f1ea", "\u2581", "\u2581\u2581", "<0x41>", "\x00", "\x7f", "_", "#", "...", "!?",
       "\u65e5\u672c\u8a9e", "\u041f\u0440\u0438\u0432\u0435\u0442", "\u0627\u0644\u0639\u0631\u0628", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0e44\u0e17\u0e22",
       "\u0130", "\u1e9e", "\u03a3", "\u00e9", "\u00df")
RANGES = ((0x20, 0x7E), (0x20, 0x7E), (0x00, 0x1F), (0x80, 0x17F), (0x180, 0x36F), (0x370, 0x5FF), (0x600, 0x8FF), (0x900, 0xDFF),
          (0xE00, 0x11FF), (0x1200, 0x1DFF), (0x1E00, 0x20CF), (0x20D0, 0x2BFF), (0x2C00, 0x30FF), (0x3100, 0x33FF), (0x4E00, 0x9FFF),
          (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFD), (0x10000, 0x11FFF), (0x1D000, 0x1FAFF), (0x20000, 0x2FFFF), (0xE0000, 0x10FFFF))


def random_string(rng: random.Random, added: list[str]) -> str:
    """One string; `added` are the added tokens of the tokenizer, which some strings contain, whole or cut."""
    parts = []
    style = rng.random()
    for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 21))):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(WORDS))
            if rng.random() < 0.7:
                parts.append(" ")
        elif kind < 0.6:
            parts.append(rng.choice(ODD))
        elif kind < 0.85 or not added:
            low, high = rng.choice(RANGES) if style < 0.7 else RANGES[0]
            parts.append("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.95:
            parts.append(rng.choice(added))
        elif kind < 0.97:
            token = rng.choice(added)
            parts.append(token[:rng.randint(0, len(token))])
        else:
            parts.append(rng.choice(("a", " ", "\n", "ab", "1", "\u2581", "=", "\u4e2d")) * rng.randint(2, 120))
    return "".join(parts)


def random_strings(count: int, seed: int, added: list[str]):
    rng = random.Random(seed)
    for _ in range(count):
        yield random_string(rng, added)
