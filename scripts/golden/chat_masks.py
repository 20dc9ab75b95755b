#!/usr/bin/env python3
"""What of a conversation is learned, for each template of chat_templates.py: what
tests/golden/chat/masks.json holds.

    python scripts/golden/chat_masks.py tests/golden/chat/masks.json

Needs jinja2 3.1, which the program itself does not. Every field of every message is a word of its
own; it is looked for in the text that Jinja renders. Words of the assistant's fields are learned
where the template writes them, with the token that closes the turn; those of all others never.
"""
import json
import sys

import jinja2

import chat_templates

chat_templates.TIME = 1721995200  # 2024-07-26 12:00 UTC, the day that training writes
ENDS = {"chatml": "<|end|>", "tool_tags": "<|end|>", "headers": "<|eot|>", "brackets": "</s>",
        "brackets_with_tools": "</s>", "bars": "</s>"}


def conversations():
    """Messages with their words: (words learned, words never learned)."""
    words = iter(f"w{number:03d}x" for number in range(1000))

    def turn(role, **fields):
        taken = {name: next(words) for name in fields}
        message = {"role": role, **{k: v for k, v in taken.items() if k != "argument"}}
        if "argument" in taken:
            message["tool_calls"] = [{"id": "abcdefghi", "type": "function", "function": {
                "name": "weather", "arguments": {"city": taken["argument"]}}}]
            message.setdefault("content", "")
        return message, list(taken.values())

    def of(*turns):
        learned, never = [], []
        for message, taken in turns:
            (learned if message["role"] == "assistant" else never).extend(taken)
        return [message for message, _ in turns], learned, never

    user = lambda: turn("user", content=1)
    answer = lambda: turn("assistant", content=1)
    yield "one", of(user(), answer())
    yield "three", of(user(), answer(), user(), answer(), user(), answer())
    yield "system", of(turn("system", content=1), user(), answer())
    yield "reasoning", of(user(), turn("assistant", reasoning_content=1, content=1), user(),
                          turn("assistant", reasoning_content=1, content=1))
    yield "tools", of(user(), turn("assistant", argument=1), turn("tool", content=1), answer())
    yield "open", of(user(), answer(), user())


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    cases = []
    for name, end in ENDS.items():
        template = chat_templates.MODELS[name]
        for chat, (messages, learned, never) in conversations():
            for tools in (None, chat_templates.TOOLS):
                try:
                    text = chat_templates.render(template, messages, tools, False, {})
                except (jinja2.TemplateError, TypeError):
                    continue  # what the template does not take
                cases.append({"name": f"{name}/{chat}", "template": name, "messages": messages, "tools": tools, "text": text,
                              "end": end, "learned": [w for w in learned if w in text], "never": [w for w in never if w in text]})
    golden = {"made_by": "scripts/golden/chat_masks.py, jinja2 " + jinja2.__version__,
              "constants": chat_templates.CONSTANTS,
              "templates": {name: chat_templates.MODELS[name] for name in ENDS}, "cases": cases}
    with open(sys.argv[1], "w", encoding="utf-8") as out:
        json.dump(golden, out, ensure_ascii=False, indent=0)
        out.write("\n")
    print(f"{len(cases)} cases, {sum(len(c['learned']) for c in cases)} words learned, {sum(len(c['never']) for c in cases)} not")
    return 0


if __name__ == "__main__":
    sys.exit(main())
