#!/usr/bin/env python3
"""Chat templates rendered by Jinja itself: what tests/golden/chat/templates.json holds.

    python scripts/golden/chat_templates.py tests/golden/chat/templates.json
    python scripts/golden/chat_templates.py more.json --random 20000 --seed 7    # then, by hand:
    TPTRAIN_CHAT_CASES=more.json build/cpu/tests/unit/chat_template/unit_chat_template_golden

Needs jinja2 3.1, which the program itself does not. The environment is the one that transformers
makes (apply_chat_template): sandboxed, trim_blocks, lstrip_blocks, loop controls, its tojson,
raise_exception, strftime_now and generation tag.

  kind "must"    templates of our own in the ways of the model families: the program gives this text
  kind "refuse"  what such a template refuses: the program refuses it with this message
  kind "random"  generated templates: the program gives this text or refuses by name, where Jinja
                 fails (text null) it refuses; never another text
"""
import argparse
import datetime
import json
import random

import jinja2
import jinja2.ext
import jinja2.sandbox

TIME = 1753531200  # 2025-07-26 12:00 UTC; the formats below show no hour


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


class Refused(jinja2.TemplateError):
    pass


def refuse(message):
    raise Refused(message)


def environment():
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    made.filters["tojson"] = lambda x, ensure_ascii=False, indent=None, separators=None, sort_keys=False: json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(TIME).strftime(form)
    return made


ENVIRONMENT = environment()
CONSTANTS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


CALL = {"id": "abcdefghi", "type": "function", "function": {
    "name": "weather", "arguments": {"city": "Z\u00fcrich", "days": 1.5, "hourly": True, "unit": None, "at": [1, "x", {}]}}}
TOOLS = [{"type": "function", "function": {
    "name": "weather", "description": "The \"weather\"\tnow </b>", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "number", "maximum": 1e20}},
        "required": ["city"]}}}]
CONVERSATIONS = {
    "question": [user("What is 2+3?")],
    "answered": [user("  a \n"), assistant(" b\n")],
    "three_turns": [user("a"), assistant("<think>\nr\n</think>\n\nb"), user("\u00fc\U0001f600 \u00a0")],
    "system": [system(" Be brief. "), user("a"), assistant("b", reasoning_content="why\n"), user("c")],
    "tools": [user("weather?"), assistant("", tool_calls=[CALL]),
              {"role": "tool", "content": "21", "tool_call_id": "abcdefghi"},
              {"role": "tool", "content": "22"}, assistant("Warm.")],
    "not_alternating": [user("a"), user("b")],
    "parts": [user([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])],
    "empty": [],
}

MODELS = {
    "chatml": """{% for message in messages %}
{% if loop.first and message.role != 'system' %}
{{ '<|start|>system\\nHelp.<|end|>\\n' }}
{%- endif %}
{{ '<|start|>' + message['role'] + '\\n' }}
{%- if message.content is string -%}
{{ message.content }}
{%- else %}
{%- for part in message.content %}{{ part.text }}{% if not loop.last %}, {% endif %}{% endfor %}
{%- endif %}
{{- '<|end|>' + '\\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|start|>assistant\\n' }}
{%- endif %}
""",
    "tool_tags": """{%- if tools %}
    {{- '<|start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\\n\\n' }}{%- endif %}
    {{- "# Tools\\n<tools>" }}
    {%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
    {{- "\\n</tools>\\n{\\"name\\": <name>}<|end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and not(message.content is string and message.content.startswith('<r>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|start|>' + message.role + '\\n' + content + '<|end|>\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
            {%- if call.function %}{%- set call = call.function %}{%- endif %}
            {{- '<call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\\n</call>' }}
        {%- endfor %}
        {{- '<|end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|start|>user' }}{%- endif %}
        {{- '\\n<r>\\n' + content + '\\n</r>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}""",
    "headers": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|head|>system<|/head|>\\n\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|/head|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
        {%- set call = message.tool_calls[0].function %}
        {{- call.name + "(" }}
        {%- for name, value in call.arguments | items %}
            {{- name + '=' + value|tojson }}
            {%- if not loop.last %}{{- ", " }}{%- endif %}
        {%- endfor %}
        {{- ")<|eot|>" }}
    {%- elif message.role == "tool" %}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\\n\\n' }}
{%- endif %}
""",
    "brackets": "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set first = messages[0]['content'] %}"
                "{% else %}{% set rest = messages %}{% set first = false %}{% endif %}"
                "{% for message in rest %}"
                "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                "{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
                "{% if loop.index0 == 0 and first != false %}"
                "{% set content = '<<SYS>>\\n' + first + '\\n<</SYS>>\\n\\n' + message['content'] %}"
                "{% else %}{% set content = message['content'] %}{% endif %}"
                "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
                "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
                "{% endfor %}",
    "brackets_with_tools": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- for message in loop_messages | rejectattr("role", "equalto", "tool") | selectattr("tool_calls", "undefined") %}
    {%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
        {{- raise_exception("Conversation roles must alternate") }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["tool_calls"] is defined %}
        {{- "[CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- set out = call.function|tojson %}
            {{- out[:-1] }}
            {%- if not call.id is defined or call.id|length != 9 %}
                {{- raise_exception("Ids have 9 characters!") }}
            {%- endif %}
            {{- ', "id": "' + call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] in ("tool", "tool_results") %}
        {{- '[RESULTS] {"content": ' + message.content|string + "}[/RESULTS]" }}
    {%- else %}
        {{- raise_exception("Unknown role") }}
    {%- endif %}
{%- endfor %}
""",
    "bars": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{% generation %}{{ '<|assistant|>
'  + message['content'] + eos_token }}{% endgeneration %}

{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "macros": """{%- macro turn(role, text, end='.') -%}
  [{{ role | upper }}] {{ text }}{{ end }}
{%- endmacro -%}
{%- set names = {'user': 'human', "assistant": 'bot'} -%}
{%- for m in messages if m.role in names -%}
{{ turn(names[m.role], (m.content | default('-', true)) ~ loop.index, end='!' if loop.last else ';') }}
{% endfor %}
{%- set tail %}{{ messages | map(attribute='role') | join(' ') }} {{ 7 // 2 }} {{ -7 % 3 }} {{ 1 / 4 }} {{ 1e16 * 10 }} {{ none }} {{ true }}
{% endset %}
{{- tail }}""",
    "typed_arguments": """{%- macro typed(key, value) -%}
<{{ key }}>{{ '"' ~ value ~ '"' if value is string else value }}</{{ key }}>
{%- endmacro -%}
{%- for m in messages %}
    {%- set content = m.content | string | safe if m.content is string else (m.content | tojson | safe) %}
    {{- '<|start|>' ~ m.role ~ '\\n' ~ content ~ (loop.index0 | string | int + 1) }}
    {%- for call in m.tool_calls %}
        {%- for key, value in call.function.arguments | dictsort %}
            {%- set pair = [key, value | tojson] %}
            {{- typed(*pair) }}
        {%- endfor %}
    {%- endfor %}
    {{- content }}
    {{- '<|end|>\\n' }}
{%- endfor %}""",
}


def render(template, messages, tools, prompt, variables):
    return ENVIRONMENT.from_string(template).render(
        messages=messages, tools=tools, documents=None, add_generation_prompt=prompt, **CONSTANTS, **variables)


def model_cases():
    for name, template in MODELS.items():
        for chat, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                for tools in (None, TOOLS):
                    case = {"name": f"{name}/{chat}", "template": template, "messages": messages, "tools": tools,
                            "add_generation_prompt": prompt, "variables": {"enable_thinking": False} if prompt else {}}
                    try:
                        text = render(template, messages, tools, prompt, case["variables"])
                        # A list printed in Python's spelling is what the program refuses.
                        yield {**case, "kind": "random" if "{'type'" in text else "must", "text": text}
                    except Refused as e:
                        yield {**case, "kind": "refuse", "text": str(e)}
                    except Exception:  # where Jinja itself fails, so must the program; its words are its own
                        yield {**case, "kind": "random", "text": None}


MESSAGES = [system(" sys "), user("a b\n\u00fc\U0001f600"),
            {"role": "assistant", "content": "x</think>y", "n": 3, "f": 1.5, "b": True, "z": None, "l": [1, "2", [3]],
             "d": {"k": "v", "items": "I", "\u00e9": 2}}]
ATOMS = """messages messages[0] messages[-1] messages[2].l messages[2].d messages[2].n messages[2].f messages[2].b
 messages[2].z undef undef.x messages[1].content messages[0]["content"] "abc" '\u00e9b' 0 1 -1 2.5 true none [1,2,3]
 ("a","b") {"k":1} ns.v ns loop.index x x.role range(3) messages[9] messages|length "1" "" [] {} eos_token 1e3 0.1
 1e16 1.0 1e-5 x.content messages[1].role""".split()
FILTERS = """trim length upper lower first last list string tojson tojson(indent=2) default("D") default("D",true)
 join(",") join items replace("a","b") capitalize map(attribute="role") selectattr("role","equalto","user")
 rejectattr("n") selectattr("n","defined") select reject("none") count d(1) safe title int unique reverse""".split()
TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence",
         "iterable", "true", "false", "odd", "even", "divisibleby(2)", "equalto(1)", 'eq "abc"', "in [1,2]", "ne none",
         "not defined", "not string", "gt 1", "lt(2)"]
METHODS = ["strip()", "lstrip()", 'rstrip("c")', "split()", 'split("b")', 'split("</think>")[-1]', 'split(" ",1)',
           'startswith("a")', 'endswith(("c","y"))', 'replace("a","")', "upper()", "items()", "keys()",
           "values()|list", 'get("k")', 'get("q","def")', "role", "content", "foo", 'join(["a","b"])', "title()",
           "capitalize()", 'strip("a ")', "items"]
SUBSCRIPTS = ["0", "-1", "1:", "::-1", ":2", "-2:", "1:-1", "::2", "5:1:-2", "k", '"k"', "none", ":none"]


class Generator:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, choices):
        return self.random.choice(choices)

    def expression(self, depth):
        r = self.random.random()
        inner = lambda: self.expression(depth - 1)
        if depth <= 0 or r < 0.25:
            return self.pick(ATOMS)
        if r < 0.35:
            return f"{inner()} {self.pick(['+', '-', '*', '/', '//', '%', '~', '~'])} {inner()}"
        if r < 0.45:
            return f"{inner()} {self.pick(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in'])} {inner()}"
        if r < 0.53:
            return f"{inner()} {self.pick(['and', 'or'])} {inner()}"
        if r < 0.57:
            return f"not {inner()}"
        if r < 0.70:
            return f"{inner()}|{self.pick(FILTERS)}"
        if r < 0.78:
            return f"{inner()} is {self.pick(TESTS)}"
        if r < 0.88:
            return f"{self.pick(ATOMS)}.{self.pick(METHODS)}"
        if r < 0.92:
            return f"({inner()})"
        if r < 0.95:
            return f"{inner()} if {inner()} else {inner()}"
        if r < 0.98:
            return f"{self.pick(ATOMS)}[{self.pick(SUBSCRIPTS)}]"
        return f"-{inner()}"

    def tag(self, text):
        return f"{self.pick(['{%', '{%', '{%-', '{%+'])} {text} {self.pick(['%}', '%}', '-%}', '+%}'])}"

    def space(self):
        return self.pick(["", " ", "\n", "  \n", " \n  ", "\n\n", "text", "\t", "\r\n", "\u00e9\n", " {# c #}\n",
                          "{#- c -#}", "\u00a0"])

    def body(self, depth):
        out = ""
        for _ in range(self.random.randint(1, 3)):
            out += self.space()
            r = self.random.random()
            e = lambda: self.expression(1)
            more = lambda: self.body(depth - 1)
            if r < 0.45 or depth <= 0:
                out += f"{self.pick(['{{', '{{-'])} {e()} {self.pick(['}}', '-}}'])}"
            elif r < 0.6:
                out += self.tag("if " + e()) + more()
                if self.random.random() < 0.3:
                    out += self.tag("elif " + e()) + more()
                if self.random.random() < 0.4:
                    out += self.tag("else") + more()
                out += self.tag("endif")
            elif r < 0.78:
                out += self.tag(self.pick(["for x in " + e(), "for x in messages", "for x in messages if " + e(),
                                           "for k, x in messages[2].d.items()", "for x in range(3)"])) + more()
                if self.random.random() < 0.1:
                    out += self.tag(self.pick(["break", "continue"]))
                if self.random.random() < 0.2:
                    out += self.tag("else") + more()
                out += self.tag("endfor")
            elif r < 0.88:
                out += self.tag(f"set {self.pick(['x', 'y', 'ns.v', 'a, b', 'messages'])} = {e()}")
            elif r < 0.92:
                out += self.tag("set x") + more() + self.tag("endset")
            elif r < 0.96:
                out += self.tag("macro m(x, y=1)") + more() + self.tag("endmacro") + "{{ m(" + e() + ") }}"
            else:
                out += self.tag("generation") + more() + self.tag("endgeneration")
        return out + self.space()

    def template(self):
        if self.random.random() < 0.3:
            return "{{ " + self.expression(2) + " }}"
        return "{% set ns = namespace(v=1) %}" + self.body(2)


def random_cases(count, seed):
    generator = Generator(seed)
    for i in range(count):
        template = generator.template()
        try:
            text = render(template, MESSAGES, None, False, {})
        except Exception:
            text = None
        yield {"name": f"random {i}", "kind": "random", "template": template, "text": text}


def indexed(cases):
    """Templates and conversations once; cases name them by number."""
    templates = list(dict.fromkeys(case["template"] for case in cases))
    chats = [MESSAGES] + list(CONVERSATIONS.values())
    number = {template: i for i, template in enumerate(templates)}
    for case in cases:
        case["template"] = number[case["template"]]
        case["messages"] = chats.index(case["messages"]) if "messages" in case else 0
        if "tools" in case:
            case["tools"] = case["tools"] is not None
    return {"made_by": "jinja2 " + jinja2.__version__, "time": TIME, "constants": CONSTANTS, "tools": TOOLS,
            "templates": templates, "conversations": chats, "cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--random", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    golden = indexed(list(model_cases()) + list(random_cases(arguments.random, arguments.seed)))
    with open(arguments.out, "w", encoding="utf-8") as f:
        json.dump(golden, f, ensure_ascii=True)
        f.write("\n")
    kinds = [case["kind"] for case in golden["cases"]]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})


if __name__ == "__main__":
    main()
