#!/usr/bin/env python3
"""Published chat templates, of a folder that the repository does not hold, rendered by Jinja itself; by hand:

    python scripts/golden/published_templates.py FOLDER texts.json masks.json
    TPTRAIN_CHAT_CASES=texts.json build/cpu/tests/unit/chat_template/unit_chat_template_golden
    TPTRAIN_CHAT_MASKS=masks.json build/cpu/tests/unit/data/unit_data_chat_rows

Needs jinja2 3.1. FOLDER holds NAME.jinja files. The conversations are those of chat_templates.py and chat_masks.py, so what is
asked of a template is what is asked of the repository's own: the same text, and that the assistant's words alone are learned.
"""
import json
import pathlib
import re
import sys

import jinja2

import chat_masks
import chat_templates

# What a tokenizer knows as one token, by the ways in which templates write such tokens.
SPECIAL = re.compile(r"<\|[^<>|\s]{1,40}\|>|<\uff5c[^<>\uff5c\s]{1,40}\uff5c>|</?s>|<(?:start|end)_of_turn>|<\|turn>|<turn\|>|\[/?INST\]"
                     r"|<\|?(?:bos|eos|endoftext|pad)\|?>|\[(?:e~\[|\|endofturn\|\])|\]~b\]|<SPECIAL_\d+>|<extra_id_\d>")


def rendered(template, messages, tools, prompt, variables):
    """(kind, text) as chat_templates.py tells them apart."""
    try:
        text = chat_templates.render(template, messages, tools, prompt, variables)
    except chat_templates.Refused as e:
        return "refuse", str(e)
    except Exception:  # where Jinja itself fails, so must the program; its words are its own
        return "random", None
    # A list, an object or None in Python's spelling is what the program may refuse.
    return ("random" if re.search(r"\{'|\['|\bNone\b|<class", text) else "must"), text


def text_cases(templates):
    for name, template in templates.items():
        for chat, messages in chat_templates.CONVERSATIONS.items():
            for prompt in (False, True):
                for tools in (None, chat_templates.TOOLS):
                    variables = {"enable_thinking": False} if prompt else {}
                    kind, text = rendered(template, messages, tools, prompt, variables)
                    yield {"name": f"{name}/{chat}", "template": template, "messages": messages, "tools": tools,
                           "add_generation_prompt": prompt, "variables": variables, "kind": kind, "text": text}


def end_of_turn(template):
    """The one token that stands behind every answer, the last one too; none where a template closes turns in another way."""
    messages = [chat_templates.user("w900x"), chat_templates.assistant("w901x"), chat_templates.user("w902x"),
                chat_templates.assistant("w903x")]
    kind, text = rendered(template, messages, None, False, {})
    if kind != "must" or any(word not in text for word in ("w901x", "w902x", "w903x")):
        return None
    first, last = (SPECIAL.match(text.split(word)[1].lstrip()) for word in ("w901x", "w903x"))
    return first.group() if first and last and first.group() == last.group() else None


def mask_cases(name, template):
    end = end_of_turn(template)
    for chat, (messages, learned, never) in chat_masks.conversations():
        for tools in (None, chat_templates.TOOLS):
            kind, text = rendered(template, messages, tools, False, {})
            if text is None or kind == "refuse":
                continue
            # The token behind a call may be another than the one behind words.
            closed = [m["content"] for m in messages if m["role"] == "assistant" and "tool_calls" not in m]
            yield {"name": f"{name}/{chat}", "template": name, "messages": messages, "tools": tools, "text": text, "end": end or "",
                   "learned": [w for w in learned if w in text], "never": [w for w in never if w in text],
                   "closed": [w for w in closed if end and w in text],
                   "special": sorted(set(SPECIAL.findall(template)) | {"<s>", "</s>"}), "may_refuse": kind != "must"}


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja"))}
    texts = chat_templates.indexed(list(text_cases(templates)))
    chat_templates.TIME = 1721995200  # the day that training writes
    masks = [case for name, template in templates.items() for case in mask_cases(name, template)]
    pathlib.Path(sys.argv[2]).write_text(json.dumps(texts, ensure_ascii=False), encoding="utf-8")
    pathlib.Path(sys.argv[3]).write_text(json.dumps(
        {"made_by": "published_templates.py, jinja2 " + jinja2.__version__, "constants": chat_templates.CONSTANTS,
         "templates": templates, "cases": masks}, ensure_ascii=False), encoding="utf-8")
    print(f"{len(templates)} templates: {len(texts['cases'])} texts, {len(masks)} masks of {sum(len(c['learned']) for c in masks)} learned words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
