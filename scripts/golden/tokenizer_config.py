#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_config/cases.json: what transformers' AutoTokenizer makes of the files beside a tokenizer.json.

  python3 scripts/golden/tokenizer_config.py          needs transformers and tokenizers (pip)

A small byte-level BPE, and cases that differ from it in a few keys: tokens that stand outside tokenizer.json only, keys that change
ids, tokens under other names. Each case holds the files, texts, and the ids of transformers.
"""
import json
import pathlib
import sys
import tempfile

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/tokenizer_config/cases.json"
TEXT = ["the tower and the town stood there, then the tide turned and the thunder came down on them"] * 4
TEXTS = [
    "the town", " the town", "<s>the</s> town", "<s>  the town", "the <new> tower", "the<new>tower", "x [PAD] y", "then<extra_1>, <img> and <tool>there",
    "a <pad> b<unk>c", "", " ", "and\n<new>  down",
]


def base():
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<s>", "</s>", "<unk>"], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    return json.loads(tokenizer.to_str())


def added(content, **flags):
    return dict(content=content, lstrip=False, rstrip=False, normalized=False, single_word=False, special=True) | flags


def cases(vocab):
    word, word_id = max(((token, i) for token, i in vocab.items() if token.isascii() and token.isalpha()), key=lambda entry: (len(entry[0]), entry[0]))
    fast = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}

    def case(name, config=None, tokenizer=None, **files):
        files = {key.replace("__", "."): value for key, value in files.items()}
        return dict(name=name, tokenizer=tokenizer or {}, files=files | ({} if config is None else {"tokenizer_config.json": config}))

    decoder = lambda *tokens: {"added_tokens_decoder": {str(280 + i): t for i, t in enumerate(tokens)}}
    nfd = {"normalizer": {"type": "Lowercase"}}
    lower_pad = {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 2, "pad_type_id": 0,
                             "pad_token": "<pad>"}}
    return [
        case("nothing beside it"),
        case("added_tokens_decoder", fast | decoder(added("<new>"))),
        case("two, and flags", fast | decoder(added("<new>", lstrip=True), added("[PAD]", rstrip=True, special=False))),
        case("an id that the library does not give", fast | {"added_tokens_decoder": {"270": added("there")}}),
        case("a token that the vocabulary has", fast | {"added_tokens_decoder": {str(word_id): added(word)}}),
        case("a named token that the vocabulary has", fast | {"pad_token": word}),
        case("flags of one that tokenizer.json has", fast | {"added_tokens_decoder": {"0": added("<s>", rstrip=True)}}),
        case("normalized, after a normaliser", fast | decoder(added("<NEW>", normalized=True, special=False)), nfd),
        case("pad_token in no vocabulary", fast | {"pad_token": "[PAD]"}),
        case("pad_token is a word of the vocabulary", fast | {"pad_token": "there"}),
        case("pad_token as an object", fast | {"pad_token": added("[PAD]", lstrip=True, __type="AddedToken")}),
        case("several names of one", fast | {"pad_token": "[PAD]", "mask_token": "<new>", "sep_token": "[PAD]"}),
        case("additional_special_tokens", fast | {"additional_special_tokens": ["<extra_1>", added("<new>", __type="AddedToken")]}),
        case("extra_special_tokens, a list", fast | {"extra_special_tokens": ["<extra_1>", "<new>"]}),
        case("extra_special_tokens, names", fast | {"extra_special_tokens": {"image_token": "<img>", "tool_token": "<tool>"}}),
        case("both lists", fast | {"extra_special_tokens": ["<tool>"], "additional_special_tokens": ["<extra_1>"]}),
        case("a *_token of its own", fast | {"image_token": "<img>"}),
        case("decoder and names together", fast | decoder(added("<new>")) | {"pad_token": "[PAD]", "additional_special_tokens": ["<tool>"]}),
        case("special_tokens_map alone", special_tokens_map__json={"pad_token": "[PAD]", "additional_special_tokens": ["<tool>"]}),
        case("special_tokens_map over the configuration", fast | {"pad_token": "<new>"}, special_tokens_map__json={"pad_token": "[PAD]"}),
        case("special_tokens_map beside added_tokens_decoder", fast | decoder(added("<new>")),
             special_tokens_map__json={"pad_token": "[PAD]"}),
        case("added_tokens.json", fast, added_tokens__json={"<new>": 280, "<tool>": 281}),
        case("added_tokens.json beside added_tokens_decoder", fast | decoder(added("<new>")), added_tokens__json={"<tool>": 280}),
        case("added_tokens.json, of a named token", fast | {"pad_token": "[PAD]"}, added_tokens__json={"[PAD]": 280}),
        case("split_special_tokens", fast | {"split_special_tokens": True}),
        case("split_special_tokens, one that is not special", fast | {"split_special_tokens": True} | decoder(added("<new>", special=False))),
        case("padding of tokenizer.json", fast, lower_pad),
        case("GPT2Tokenizer with add_prefix_space", {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "bos_token": "<s>",
                                                      "eos_token": "</s>", "unk_token": "<unk>"}),
        case("PreTrainedTokenizerFast with add_prefix_space", fast | {"add_prefix_space": True}),
        case("GPT2Tokenizer over a tokenizer.json with a space", {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>",
             "eos_token": "</s>", "unk_token": "<unk>"},
             {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}}),
        case("add_bos_token and add_eos_token", fast | {"add_bos_token": False, "add_eos_token": True}),
    ]


def main():
    tokenizer = base()
    out = []
    for case in cases(tokenizer["model"]["vocab"]):
        with tempfile.TemporaryDirectory() as folder:
            for name, content in case["files"].items():
                pathlib.Path(folder, name).write_text(json.dumps(content), encoding="utf-8")
            pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(tokenizer | case["tokenizer"]), encoding="utf-8")
            reference = transformers.AutoTokenizer.from_pretrained(folder)
            case["ids"] = [reference(text)["input_ids"] for text in TEXTS]
            case["size"] = len(reference)
        out.append(case)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    head = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "tokenizer": tokenizer, "texts": TEXTS}
    lines = [json.dumps(head, ensure_ascii=True)] + [json.dumps(case, ensure_ascii=True) for case in out]
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(out)} cases")


if __name__ == "__main__":
    sys.exit(main())
