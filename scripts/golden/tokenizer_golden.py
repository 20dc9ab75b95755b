#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_bpe: small BPE tokenizers that between them use every part that is built, and what the Hugging
Face library makes of random strings with each.

  tokenizer_golden.py --out tests/golden/tokenizer_bpe [--strings 2000]

vectors.json holds the strings once, and for each tokenizer two checksums a string (the first 8 hex digits of SHA-256): "ids" over
the ids with special tokens, as little-endian 32-bit integers; "others" over the ids with special tokens as text, the text that
the former ids decode to, a zero byte, and that text without special tokens. Made with tokenizers 0.22.2.
"""
import argparse
import hashlib
import json
import pathlib
import random
import struct
import sys
import unicodedata

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from tokenizer_strings import ODD, WORDS, random_strings  # noqa: E402

SPECIAL = [AddedToken("<s>", special=True, normalized=False), AddedToken("</s>", special=True, normalized=True)]
OTHER = [AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False),
         AddedToken("word", single_word=True, normalized=False), AddedToken("Ma\u00dfe", normalized=True),
         AddedToken("<both>", lstrip=True, rstrip=True, single_word=True, normalized=True), AddedToken("<s>>", normalized=False)]


def corpus(rng: random.Random):
    for _ in range(400):
        yield " ".join(rng.choice(WORDS) for _ in range(12)) + rng.choice(ODD) + rng.choice("\u00e9\u00df\u4e2d\u65e5 1,.")


def trained(tokenizer: Tokenizer, size: int, **options) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(corpus(random.Random(5)), trainer)
    return tokenizer


def byte_level() -> Tokenizer:
    t = Tokenizer(models.BPE())
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                             behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t = trained(t, 420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.decoder = decoders.ByteLevel()
    return t


def prefix_space() -> Tokenizer:
    """Not all bytes known, a space before each text, pieces changed after they were written as characters."""
    t = Tokenizer(models.BPE(ignore_merges=True))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(r"\d{2}"), "#")])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("merged_with_next"),
                                               pre_tokenizers.ByteLevel(add_prefix_space=True), pre_tokenizers.Split("\u0120t", "contiguous")])
    t = trained(t, 300)
    t.decoder = decoders.ByteLevel()
    return t


def metaspace(scheme: str, split: bool) -> Tokenizer:
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=split, byte_fallback=True))
    t.normalizer = normalizers.Replace("\u00df", "ss") if split else None
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    t = trained(t, 560 if split else 420, special_tokens=["<unk>"] + ([f"<0x{b:02X}>" for b in range(256)] if split else ["<0x41>", "<0xC3>", "<0xA9>"]))
    t.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]) \
        if split else decoders.Metaspace(prepend_scheme=scheme)
    return t


def words() -> Tokenizer:
    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", end_of_word_suffix="</w>"))
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(), normalizers.Strip(left=True, right=False)])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)])
    t = trained(t, 400, special_tokens=["<unk>"], continuing_subword_prefix="##", end_of_word_suffix="</w>")
    t.decoder = decoders.BPEDecoder(suffix="</w>")
    return t


def splits() -> Tokenizer:
    t = Tokenizer(models.BPE(unk_token="<unk>"))
    t.normalizer = normalizers.NFKD()
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("e", "merged_with_previous"), pre_tokenizers.Split(Regex("[A-Z]|o+"), "merged_with_next"),
        pre_tokenizers.Split(Regex("[^aiu]+"), "removed", invert=True), pre_tokenizers.Digits(), pre_tokenizers.Punctuation("isolated")])
    t = trained(t, 260, special_tokens=["<unk>"])
    return t


def finished(t: Tokenizer) -> Tokenizer:
    t.add_special_tokens(SPECIAL)
    t.add_tokens(OTHER)
    start, end = t.token_to_id("<s>"), t.token_to_id("</s>")
    t.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A $B", special_tokens=[("<s>", start), ("</s>", end)])])
    return t


def checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    parser.add_argument("--strings", type=int, default=2000)
    args = parser.parse_args()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    built = {"byte_level": byte_level(), "prefix_space": prefix_space(), "metaspace_first": metaspace("first", True),
             "metaspace_always": metaspace("always", False), "words": words(), "splits": splits()}
    added = [token.content for token in SPECIAL + OTHER]
    strings = [s for s in random_strings(args.strings * 2, 7, added)
               if len(s) < 120 and all(unicodedata.category(c) not in ("Cn", "Co", "Cs") for c in s)][:args.strings]
    vectors = {"made_by": f"tokenizers {tokenizers.__version__}", "strings": strings, "checksums": {}}
    for name, t in built.items():
        t = finished(t)
        # Compact, and as a file would have it: what is left out has the library's default.
        (out / f"{name}.json").write_text(json.dumps(json.loads(t.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        t = Tokenizer.from_file(str(out / f"{name}.json"))
        text_only = Tokenizer.from_file(str(out / f"{name}.json"))
        text_only.encode_special_tokens = True
        rows = {"ids": "", "others": ""}
        for string in strings:
            ids = t.encode(string).ids
            rows["ids"] += checksum(struct.pack(f"<{len(ids)}i", *ids))
            plain = text_only.encode(string, add_special_tokens=False).ids
            rows["others"] += checksum(struct.pack(f"<{len(plain)}i", *plain) + t.decode(ids, skip_special_tokens=False).encode()
                                       + b"\0" + t.decode(ids).encode())
        vectors["checksums"][name] = rows
    (out / "vectors.json").write_text(json.dumps(vectors, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(strings)} strings, {len(built)} tokenizers")


if __name__ == "__main__":
    main()
