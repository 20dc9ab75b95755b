#!/usr/bin/env python3
"""Seeds for the fuzz targets: a few valid inputs each, so that the first minute is not spent on finding out what JSON is.

    python3 tests/fuzz/make_seeds.py DIRECTORY     writes DIRECTORY/<target>/<number>
"""
import json
import pathlib
import struct
import sys


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def safetensors():
    headers = [
        ({}, 0),
        ({"a": entry("F32", [2, 2], 0, 16)}, 16),
        ({"__metadata__": {"format": "pt"}, "b": entry("BF16", [3], 4, 10), "a": entry("U8", [4], 0, 4)}, 10),
        ({"s": entry("I64", [], 0, 8), "e": entry("F16", [0, 5], 8, 8)}, 8),
        ({"p": entry("F4", [2, 3], 0, 3), "q": entry("F6_E2M3", [4], 3, 6), "c": entry("C64", [1], 6, 14)}, 14),
    ]
    for header, data in headers:
        text = json.dumps(header).encode()
        yield struct.pack("<Q", len(text)) + text + bytes(data)
        yield struct.pack("<H", data) + text


def safetensors_index():
    yield b'{"metadata": {"total_size": 12}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    yield b'{"weight_map": {"a.b": "x.safetensors"}, "metadata": {"nested": [1, {"a": null}], "total_size": 1.5e9}}'


def config_json():
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32}
    yield {"model_type": "llama", "torch_dtype": "bfloat16", "rope_theta": 5e5, "rope_scaling": llama3, **sizes}
    yield {"model_type": "llama", "attention_bias": False, "rope_scaling": {"type": "linear", "factor": 2.0}, **sizes}
    yield {"model_type": "qwen2", "dtype": "float32", "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
           "layer_types": ["full_attention", "full_attention"], "tie_word_embeddings": True, "sliding_window": None, **sizes}
    yield {"model_type": "qwen3", "head_dim": 8, "use_sliding_window": False, **sizes}
    yield {"model_type": "mistral", "sliding_window": None, **sizes}
    yield {"model_type": "gpt2", "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64, "n_inner": None, "vocab_size": 32,
           "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}


def tokenizer_json():
    yield {"version": "1.0", "added_tokens": [{"id": 4, "content": "<s>", "special": True, "single_word": False, "lstrip": False,
                                               "rstrip": False, "normalized": False}],
           "normalizer": {"type": "NFC"},
           "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
               {"type": "Split", "pattern": {"Regex": "\\p{L}+|\\p{N}"}, "behavior": "Isolated", "invert": False},
               {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]},
           "post_processor": {"type": "TemplateProcessing",
                              "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                              "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
           "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
           "model": {"type": "BPE", "unk_token": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                     "vocab": {"a": 0, "b": 1, "ab": 2, "abb": 3}, "merges": ["a b", ["ab", "b"]]}}


def chat_template():
    yield b"{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{{ message.content | trim }}{% endfor %}"
    yield b"{%- if not add_generation_prompt is defined %}{% set x = false %}{% elif messages[0]['role'] != 'system' %}{{- bos }}{%- endif %}"
    yield b"{{ messages[1:]|length }}{% set ns = namespace(a=1) %}{% set ns.a = ns.a + loop.index0 if loop else 2 %}{{ raise_exception('no') }}"


def tokenizer_ranks():
    yield b"aGU= 256\nbGxv 257\naGVsbG8= 258\n"
    yield b'{"h": 0, "e": 1, "he": 2, "\\u0120h": 3}\0#version: 0.2\nh e\n'


def jsonl_rows():
    yield b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": "[]"}\n'
    yield b'{"conversations": [{"from": "human", "value": "q"}]}\n{"prompt": "p", "completion": "c"}\n{"instruction": "i", "output": "o"}\n'
    yield b'{"input_ids": [1, 2], "attention_mask": [1, 0], "x": NaN}\n'
    yield b'{"text": "one"}\n{"input_ids": [1, 2, 3]}\n{"input_ids": [1, 2], "labels": [-100, 2]}\n\n{"text": "\\u00e4", "id": 7}\n'


def indexed_tokens():
    def seed(kind, width, lengths, documents):
        begins = [width * sum(lengths[:i]) for i in range(len(lengths))]
        index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, kind, len(lengths), len(documents))
        index += struct.pack(f"<{len(lengths)}i{len(begins)}q{len(documents)}q", *lengths, *begins, *documents)
        return struct.pack("<q", width * sum(lengths)) + index
    yield seed(8, 2, [3, 1], [0, 1, 2])
    yield seed(4, 4, [2, 3, 0, 4], [0, 2, 2, 4])
    yield seed(5, 8, [], [0])


SEEDS = {f.__name__: f for f in (safetensors, safetensors_index, config_json, tokenizer_json, tokenizer_ranks, chat_template,
                                jsonl_rows, indexed_tokens)}


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    for name, make in SEEDS.items():
        folder = pathlib.Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(make()):
            (folder / str(number)).write_bytes(seed if isinstance(seed, bytes) else json.dumps(seed).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
