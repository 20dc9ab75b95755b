#!/usr/bin/env python3
"""Seeds for the fuzz targets: a few valid inputs each, so that the first minute is not spent on finding out what JSON is.

    python3 tests/fuzz/make_seeds.py DIRECTORY     writes DIRECTORY/<target>/<number>
"""
import base64
import gzip
import json
import pathlib
import struct
import sys
import zlib


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
    yield (b'{"text": "t", "dialog": [{"role": "user", "content": "q"}]}\n{"messages": [{"role": "human", "content": "q"}], "chosen": [{"from": "gpt"}]}\n'
           b'{"conversations": [{"from": "function_call", "value": "{\\"name\\": \\"f\\", \\"arguments\\": {}}"}]}\n')
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


# Written by pyarrow 26.0.1, packed by zlib: four rows of text, a list of structs and a list of integers.
ARROW = (
    # parquet_snappy
    'c-oDV&2G~`5XWafaJHcWgP6rDMJ1}5Rg2OnMGER62e_afe29ABj1^WiQer2z+wusA6G8}a=D?xi%mZ-Y!V_@hNtkuMsKNouTFW!@|IPe&?ZMO2Bb4|8J23_bcLBPQ0DvrY'
    'tkx(mvmJU#as~)^52H3J45=_^P`JLwX%#oQ*aKob^bA=sa3CpjUbuYA%Zp-Elu23=V+VKJL|8FyA6JYkzlM^DD<ahKR*bv?-3S>aW+dE2drf%f$z13giN=o^Q+|f-+D9ZA'
    'Y_Yzt@|RdVm#F#%iu)4rK+Nr!uRVx@VtD2z2?l`MEgs3zy)Ii2dr^-^YT}9_dF2WkHi-K^C?h#0ugHDA=EiQ~$hKU_^K9%E@+wdpW@$+UYor*x{3i`%Ys~|#OvA($8n|tG'
    '5QJtv8FH=kH>Te(dur7|+aHG40$JtI*C!@0mIp-sOM0?$QT1B(sAeT#sNXXEp4nf_zGIunGh>x9&;7=R|HWNeuF$Ezus^x|%s0Vm1y*VSmUHm2-=k|xV%7Brrav<KTi8!x'
    'gLYsQH_tc+?_GbFT3MyPNZ4;qlYDmW%ERGwdYI&ScG<jec`?e;=A*}*Zs*AOgIV2hpFWfU{V{(4m->F*',
    # parquet_zstd
    'c-oDU&ubGw6vyBEU^}f5a_|iqSTqVdR7igbEgpJNL~4l;L_B9n2NOwl)17TA9>lYF5b=)?@#@`+=pW$Kn}?qDT=2~{O=9)nvb;At`@SE(@9{df9&8}s5IZeYbcisD0bu##'
    '+DUWk1mG*DFL6Oo%rh5Kd6ZwKlrs3<t&!pr!@U;P&uP2&8C>F(_<e|VDJdR!S1bmx_XA(1S;^q)?yp7C-oe{{L#}-WczwzUY7u|gXOtPdc)L!eyZEq$OXoDnMK&?bgIjS$'
    'FyIi5;o;EjigyB~`LGF%$oKkglwt%}OL#+;?rE7oJFqr+LyesG>0{@SW7OUbm$D&;WE^?;zu<;$<gyawL|)`WH<4Et3%xumsbGc_gS~&!P$n}TXk}v4wh&{@BoUZXV_4Hl'
    'zhU~&s(Udt4W!%FJ0>!gM}(Wz?@XOn{4;Llk0^D0%=9Z}pU+|X#wukVg%Q>NhjrFkg?pm=_9dUAsVPmV2~AeCn_&QdfC#Xp$NHK5IS06I6*qTjdqQ9Oo7BoG{X@WVbDS3Y'
    '2d-S{jmIl#QRGL>Ls$4go;7c5t*)<bm@w(-3&*rB9oq2UXv&8+',
    # parquet_gzip
    'c-q~SPe>F|9LIk%`}XauPPqy1u|rF3!alTiB~2q@1C2!l2N9u8A+x(Po5H%g?QVa(iIAl2MT@9QMbITGIz(7Rbjau+1s<eB9g6Bu67+|lOZDE4tLd&HMVE$wfj7V3=lh3&'
    '>1pq6B8d1%o6a9l3$XRH0^*V#@q}SKdDdm&-oV@M@an<OzK#5x0I4N=gM8XUFu^`pwh}W8BWjun84g^nYj=xzM7ERe3iPO9)Q7r5uhHz-^z?=4z}Qd#c2#|yC$`8IvOh?a'
    'RYl&#<Vjz!FmnhZM%T3(Td0aO>qK5DWO5+{u1jq%oHn|SMAk-26V3B#A*h0T-^u<>Hrr2HDughHfz@w-yDz_i$A<fbZ@elz5yKOo)xwMp+s<yT@!0H$V6XIjCT<v=kE&tn'
    'Q*uY$x{6Q4%oxDq(JS<SD&9jHE3gy80OQYZd{9cQN7no#4Lms$RtvfcJwx}t*tKidTfvKS@qTMCN-z*LAbU~XI*|{6E*Pz{R~fW&x#(dl#|>aTEDn(uB?oeOB8&GfD`^c{'
    'sXRdo>)CYDT39b0xZ>$lo)0V`9Rp@X8bN_29#BOKYB~cSQMFdU9?f<}5JfaY?@P>NN`puYVikCB8NyW6u*Lv!@Nb))iy?|qC5fU{&Qs{PL}w*-Q)Z8(a%79f5Yi5cE|qn0'
    'ONoo<6rGaT8wWe*C?}&uGAcPnHhGWeXc?5lFddNu?V^)CMP;-GhGeY+<YIXG-a!#l=np5X*5P@H-jdiHW}~>=Sy<F4%YRhkWrf{w{gWE!-0YP5uWLj!OK(eTyqZ0%s?;KA'
    '9Xz<mPDl7O?}vVLLcKo|%^o>w<wNmICKSzP)5rbCtZZ%|o$@#DZrs_}q>1l)@rFJJKo9@7`~o(GC&>',
    # file
    'c-rk%y-EW?5T5(VUC;}h5af^`DFh2GBIE%~mre<Yt%n{OFn5?cF{Nc5!O};_BUq-iwDb{DT6uoEH>;b4sFjrib2GF1&CkwkHod{%==6Z71WhfXkOZw!Kpxeo4h>|vunATj'
    'Uzfi`4tO6vS8Old%M#$A2|eO9Y|EGeJG{v06_}`$I9sf@8AmLKMKU6pD**d4mk4u+&vE$`zpcfOB%WxL<avCV<iep3?0toAL>k@(i&#w~-vroMg|CHL{epb(d6pJQTF@gf'
    'FDr0Dj<f4T=yPB~WT~T%zU*Gey{-IOhF_6Pib{8-E#@(|syYP)w8;|*WHfSInY&{#0F#Qa<MPZ}JWG{>NX?cT%98v0nWxQihh?9Zsc+!VjQv%%iZ^B1W%*>(GdJ)Htw)01'
    '47^fQJ(0DXU)hni=4<gRBR&~@`N?(-sp2^XeqGbWp2w`tnWaf_m&M<b^0zskXVfLu8sH7^7I+)H3*OWEeVZraIM0W95vRp34dHiU+#QSSu=zX==U08W0h#Bv4IjN<w$Zmz'
    '{>G|18(_Mgy!l~u_mQQ`y;E<%0|$C$*|GFl{l8m(^={2@u%7%+`2bRiw{H',
    # stream
    'c-oCqy-ve05I!eqQ$Z>PsX`X2PzNLi7#Mf}#*QrPL|{QBnuywnj*NW_9)U+->?1Jp2pyR)XXgy=Nd-<i-<|#4k3T2YTDuScB{<oF0=m$F9(pJu!x%8?;hND3kfI)A&Mn2O'
    'Piqle4A7UfhsVCA!%nU>ydy?hk4xPCh;Tr5V$>9TuL3pqy<C|yT+Z!J{ZUk3dOW~XX<gkY?Gna_eQNQ28Q~LDS8Krf%@O<3;yYzDzmpvGs;P~t4Ll>}Z3E8PS#zhHzeG%l'
    'U3$o4?%6Ae+cs~=@{F3B*3W#5>2@jFIh_=+OD|IRYLI5W_lY0?zLdn1jNWWWZy9<3gtsL^$r8WceMV#t$c|xM#teVS&Ns!O-h%8Y*;h8tlHpeoM@~K%J~&|>Dc1XkSVnt!'
    'R8O$_z<Bv9&X^7LQik7-e0SC*4fkwnWgeUAR|)wE_3N^^++H7b2Xzm1AN3IRDB}A;t68P>M4PHM{|sE-1^adc&5_W3QtBUgxJTjlPFPONSHgI+{vQMQ0-<<!Uj',
)


def arrow_rows():
    for packed in ARROW:
        yield zlib.decompress(base64.b85decode(packed))


def chat_rows():
    yield from jsonl_rows()
    yield (b'{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": null, "weight": 0, '
           b'"reasoning_content": "r", "tool_calls": [{"function": {"name": "f", "arguments": "{\\"a\\": 1}"}}]}, '
           b'{"role": "tool", "content": "\\ud83d\\ude00"}, {"role": "assistant", "content": " a "}], "tools": [{"name": "f"}]}\n')


def packed_text():
    rows = b'{"text": "one"}\r\n\xef\xbb\xbf{"text": "two"}\n'
    yield rows
    yield gzip.compress(rows)
    yield gzip.compress(rows) + gzip.compress(b"x" * 100000)
    # zstd of "one\ntwo\n", as a frame with a checksum, and a skippable frame before it
    yield bytes.fromhex("502a4d1804000000") + b"skip" + bytes.fromhex("28b52ffd24084100006f6e650a74776f0ae6a60e40")


SEEDS = {f.__name__: f for f in (safetensors, safetensors_index, config_json, tokenizer_json, tokenizer_ranks, chat_template,
                                jsonl_rows, chat_rows, packed_text, arrow_rows, indexed_tokens)}


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
