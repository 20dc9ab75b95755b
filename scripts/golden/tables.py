#!/usr/bin/env python3
"""Conversations as users of Python's `datasets` keep them, for tests/golden/tables: rows.jsonl, the same as hub/data/*.parquet (two files, as the
hub shows a data set) and as the folder saved/ that save_to_disk makes.

    python scripts/golden/tables.py tests/golden/tables

Needs datasets (it brings pyarrow). Columns are those that occur beside the row's own: a date, a number, bytes, a list without values; the tool
calls have other arguments in each row, so that the tables hold nulls where lines hold nothing.
"""
import datetime
import json
import pathlib
import shutil
import sys

import datasets

TOOL = {"type": "function", "function": {"name": "weather", "description": "of a place", "parameters": {"type": "object"}}}


def conversation(number):
    name, value = ("city", f"Ulm {number}") if number % 2 == 0 else ("hours", number)
    call = {"type": "function", "function": {"name": "weather", "arguments": {name: value}}}
    messages = [{"role": "user", "content": f"Question {number}: \u00fc\U0001f30d?"},
                {"role": "assistant", "content": None, "tool_calls": [call]} if number % 3 == 0 else
                {"role": "assistant", "content": f"Line one of {number}\nand two."}]
    if number % 3 == 0:
        messages += [{"role": "tool", "name": "weather", "content": "rain"}, {"role": "assistant", "content": "It rains."}]
    return {"messages": messages, **({"tools": [TOOL]} if number % 3 == 0 else {})}


def main(out):
    rows = [conversation(number) for number in range(60)]
    with open(out / "rows.jsonl", "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    table = datasets.Dataset.from_list([
        {"id": number, **row, "made": datetime.datetime(2024, 7, 26, 12, number), "image": b"\xff\x00" * 3, "tags": []}
        for number, row in enumerate(rows)])
    shutil.rmtree(out / "hub", ignore_errors=True)
    shutil.rmtree(out / "saved", ignore_errors=True)
    (out / "hub/data").mkdir(parents=True)
    for part in range(2):
        table.shard(2, part, contiguous=True).to_parquet(out / f"hub/data/train-{part:05}-of-00002.parquet", batch_size=16)
    (out / "hub/README.md").write_text("---\nlicense: mit\n---\nA data set's card, which is no row of it.\n")
    table.save_to_disk(out / "saved", num_shards=2)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
