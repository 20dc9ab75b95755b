#!/usr/bin/env python3
"""Malformed safetensors files: what the reference library refuses, tptrain must refuse.

    python scripts/golden/safetensors_refusals.py --program build/cpu/bin/tptrain [--verbose]

Builds each file, asks the safetensors library (its deserialize, and safe_open) and `tptrain inspect`. Exit code 0: ours refuses
everything that the library refuses, with exit code 4, and accepts every file that is marked as right. Needs the safetensors package,
which the program does not.
"""
import argparse
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import safetensors


def pack(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(dtype="U8", shape=(1,), offsets=(0, 1), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


def of(data=b"", **tensors):
    return pack(json.dumps(tensors), data)


A = '"dtype":"U8","shape":[1],"data_offsets":[0,1]'
ONE = of(b"x", a=tensor())


def right():
    yield "one tensor", ONE
    yield "no tensors", pack("{}")
    yield "padded header", pack('{"a":{%s}}   ' % A, b"x")
    yield "metadata", pack('{"__metadata__":{"format":"pt"},"a":{%s}}' % A, b"x")
    yield "scalar", of(b"x", a=tensor(shape=()))
    yield "empty tensors between others", of(b"xy", a=tensor(shape=[1]), e=tensor(shape=[0, 3], offsets=(1, 1)), b=tensor(offsets=(1, 2)))
    yield "any order in the header", of(b"xyz", b=tensor(shape=[2], offsets=(1, 3)), a=tensor())
    yield "escaped name", pack('{"\\u00e4\\n":{%s}}' % A, b"x")
    yield "empty name", pack('{"":{%s}}' % A, b"x")
    yield "unaligned floats", of(b"x" * 5, a=tensor(), b=tensor("F32", offsets=(1, 5)))
    for dtype, size in (("BOOL", 1), ("F8_E5M2", 1), ("F8_E4M3", 1), ("F8_E8M0", 1), ("I16", 2), ("BF16", 2), ("F32", 4), ("C64", 8), ("U64", 8)):
        yield dtype, of(bytes(size), a=tensor(dtype, offsets=(0, size)))
    yield "F4 in whole bytes", of(b"xy", a=tensor("F4", [4], (0, 2)))


def wrong():
    yield "no bytes", b""
    for count in (1, 7):
        yield f"{count} bytes", ONE[:count]
    yield "length alone", ONE[:8]
    yield "length 0", pack("", length=0)
    yield "length beyond the file", pack('{"a":{%s}}' % A, b"x", length=1000)
    yield "length one too large", pack("{}", length=3)
    yield "length 100,000,001", pack("{}", length=100_000_001)
    yield "length 2^63", pack("{}", length=1 << 63)
    yield "length 2^64 - 1", pack("{}", length=(1 << 64) - 1)
    yield "not UTF-8", pack(b'{"\xff":{%s}}' % A.encode(), b"x")
    yield "cut UTF-8", pack(b'{"\xc3":{%s}}' % A.encode(), b"x")
    yield "overlong UTF-8", pack(b'{"\xc0\xaf":{%s}}' % A.encode(), b"x")
    yield "surrogate in UTF-8", pack(b'{"\xed\xa0\x80":{%s}}' % A.encode(), b"x")
    yield "lone surrogate escape", pack('{"\\ud800":{%s}}' % A, b"x")
    yield "bytes outside of texts", pack(b"{}\xff")
    yield "byte order mark", pack(b"\xef\xbb\xbf{}")
    yield "no JSON", pack("hello")
    yield "cut JSON", pack('{"a":{%s}' % A, b"x")
    yield "two values", pack("{} {}")
    yield "trailing comma", pack('{"a":{%s},}' % A, b"x")
    yield "comment", pack("{/**/}")
    yield "single quotes", pack("{'a':{%s}}" % A, b"x")
    yield "NUL behind", pack(b"{}\0")
    yield "NUL and garbage behind", pack(b"{}\0garbage")
    yield "control character in a name", pack('{"\n":{%s}}' % A, b"x")
    yield "list", pack("[]")
    yield "number", pack("3")
    yield "null", pack("null")
    yield "tensor is a number", pack('{"a":3}')
    yield "tensor is null", pack('{"a":null}')
    yield "tensor is a text", pack('{"a":"b"}')
    yield "empty tensor object", pack('{"a":{}}')
    for field in ("dtype", "shape", "data_offsets"):
        entry = tensor()
        del entry[field]
        yield f"without {field}", of(b"x", a=entry)
    yield "field twice", pack('{"a":{"dtype":"U8",%s}}' % A, b"x")
    yield "name twice", pack('{"a":{%s},"a":{%s}}' % (A, A), b"x")
    yield "name twice, other bytes", pack('{"a":{%s},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}' % A, b"xy")
    for dtype in ("F12", "f32", "", "U4", "COMPLEX128"):
        yield f"dtype {dtype!r}", of(b"x", a=tensor(dtype))
    yield "dtype a number", of(b"x", a=tensor(8))
    yield "dtype null", of(b"x", a=tensor(None))
    yield "shape a number", pack('{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}', b"x")
    yield "shape null", pack('{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}', b"x")
    yield "shape nested", of(b"x", a=tensor(shape=[[1]]))
    for size in (-1, 1.0, "1", 1 << 64, None, True):
        yield f"shape [{size!r}]", of(b"x", a=tensor(shape=[size]))
    yield "offsets a number", pack('{"a":{"dtype":"U8","shape":[1],"data_offsets":1}}', b"x")
    yield "one offset", of(b"x", a=tensor(offsets=[0]))
    yield "three offsets", of(b"x", a=tensor(offsets=[0, 1, 1]))
    yield "negative offset", of(b"x", a=tensor(offsets=[-1, 0]))
    yield "float offset", of(b"x", a=tensor(offsets=[0, 1.0]))
    yield "falling offsets", of(b"x", a=tensor(offsets=[1, 0]))
    yield "offsets beyond the file", of(b"x", a=tensor(shape=[2], offsets=[0, 2]))
    yield "offset 2^64 - 1", of(b"x", a=tensor(offsets=[0, (1 << 64) - 1]))
    yield "size smaller than shape", of(b"x", a=tensor("F32"))
    yield "size larger than shape", of(b"xy", a=tensor(offsets=[0, 2]))
    yield "shape overflows", of(b"", a=tensor(shape=[1 << 32, 1 << 32], offsets=[0, 0]))
    yield "bytes overflow", of(b"", a=tensor("F64", [1 << 61], [0, 0]))
    yield "overflow before a zero", of(b"", a=tensor(shape=[1 << 63, 1 << 63, 0], offsets=[0, 0]))
    yield "F4 not in whole bytes", of(b"xy", a=tensor("F4", [3], (0, 2)))
    yield "hole at the front", of(b"xy", a=tensor(offsets=[1, 2]))
    yield "hole between", of(b"xyz", a=tensor(), b=tensor(offsets=[2, 3]))
    yield "overlap", of(b"xyz", a=tensor(shape=[2], offsets=[0, 2]), b=tensor(shape=[2], offsets=[1, 3]))
    yield "same bytes twice", of(b"x", a=tensor(), b=tensor())
    yield "trailing byte", ONE + b"y"
    yield "bytes without tensors", pack("{}", b"x")
    yield "last byte missing", ONE[:-1]
    yield "metadata a text", pack('{"__metadata__":"a"}')
    yield "metadata a list", pack('{"__metadata__":[]}')
    yield "metadata holds a number", pack('{"__metadata__":{"a":1}}')
    yield "metadata holds null", pack('{"__metadata__":{"a":null}}')
    yield "metadata holds an object", pack('{"__metadata__":{"a":{}}}')
    yield "metadata twice", pack('{"__metadata__":{},"__metadata__":{}}')
    yield "metadata key twice", pack('{"__metadata__":{"a":"1","a":"2"}}')
    yield "metadata null", pack('{"__metadata__":null}')
    yield "space before", pack(" {}")
    yield "unknown field", of(b"x", a=tensor(more=1))
    yield "tensor as a list", pack('{"a":["U8",[1],[0,1]]}', b"x")
    yield "deep nesting", pack('{"a":' + "[" * 1000 + "]" * 1000 + "}")
    yield "65 dimensions", of(b"x", a=tensor(shape=[1] * 65))


def reference_refuses(path):
    try:
        safetensors.deserialize(path.read_bytes())
        with safetensors.safe_open(path, "np"):
            pass
    except Exception as error:  # every refusal of the library, whatever its class
        return str(error)
    return None


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--program", required=True)
    arguments.add_argument("--verbose", action="store_true", help="every file with both verdicts")
    options = arguments.parse_args()
    faults = []
    counts = {"right": 0, "wrong": 0, "refused by both": 0, "refused by tptrain alone": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "x.safetensors"
        for kind, files in (("right", right()), ("wrong", wrong())):
            for name, content in files:
                path.write_bytes(content)
                theirs = reference_refuses(path)
                run = subprocess.run([options.program, "inspect", str(path)], capture_output=True, text=True, timeout=60)
                counts[kind] += 1
                ours = run.stderr.strip().splitlines()[0].replace(str(path), "FILE") if run.returncode else None
                if options.verbose:
                    print(f"{name}\n    library: {theirs or 'accepts'}\n    tptrain: {ours or 'accepts'}")
                if run.returncode not in (0, 4):
                    faults.append(f"{name}: exit code {run.returncode}")
                if kind == "right" and (theirs or ours):
                    faults.append(f"{name}: is right, but refused: library {theirs}, tptrain {ours}")
                if kind == "wrong" and not ours:
                    faults.append(f"{name}: tptrain accepts it; the library {'refuses it: ' + theirs if theirs else 'does too'}")
                if ours:
                    counts["refused by both" if theirs else "refused by tptrain alone"] += 1
    print(f"safetensors {safetensors.__version__}: " + ", ".join(f"{number} {what}" for what, number in counts.items()))
    for fault in faults:
        print("FAULT", fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
