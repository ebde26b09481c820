"""Chat templates of the kinds that public models of the Llama family document, written
for these tests, and dialogs for them."""

CHATML = (
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
  "'<|im_end|>' + '\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CHATML_SYSTEM = (
  "{% for m in messages %}{% if loop.first and m.role != 'system' %}<|im_start|>system\n"
  'You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ m.role }}\n'
  '{{ m.content | trim }}<|im_end|>\n{% endfor %}'
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)
CHATML_MARKED = """{%- for m in messages %}
  {%- if m.role == 'assistant' %}
{{- '<|im_start|>assistant\n' }}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}{{ '\n' }}
  {%- else %}
{{- '<|im_start|>' ~ m.role ~ '\n' ~ m.content ~ '<|im_end|>\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
LLAMA2 = """{%- if messages[0]['role'] == 'system' %}
{%- set loop_messages = messages[1:] %}
{%- set system_message = messages[0]['content'] %}
{%- else %}
{%- set loop_messages = messages %}
{%- set system_message = false %}
{%- endif %}
{%- for message in loop_messages %}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}
{%- endif %}
{%- if loop.index0 == 0 and system_message != false %}
{%- set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}
{%- else %}
{%- set content = message['content'] %}
{%- endif %}
{%- if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{- ' ' + content.strip() + ' ' + eos_token }}
{%- endif %}
{%- endfor %}"""
LLAMA3 = (
  '{% set loop_messages = messages %}{% for message in loop_messages %}'
  "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
  "message['content'] | trim + '<|eot_id|>' %}"
  '{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}'
  '{{ content }}{% endfor %}{% if add_generation_prompt %}'
  "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
LLAMA31 = """{{- bos_token }}
{%- if not date_string is defined %}
  {%- if strftime_now is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
  {%- else %}
    {%- set date_string = "26 Jul 2024" %}
  {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
  {%- set system_message = messages[0]['content'] | trim %}
  {%- set messages = messages[1:] %}
{%- else %}
  {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
{{- "Environment: ipython\n" }}
{%- endif %}
{{- "Cutting Knowledge Date: December 2023\nToday Date: " + date_string + "\n\n" }}
{%- if tools is not none %}
  {{- "You can call these functions:\n\n" }}
  {%- for t in tools %}
{{- t | tojson(indent=4) }}{{ "\n\n" }}
  {%- endfor %}
{%- endif %}
{{- system_message }}{{- "<|eot_id|>" }}
{%- for message in messages %}
  {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
  {%- elif 'tool_calls' in message %}
    {%- if not message.tool_calls | length == 1 %}
{{- raise_exception("This model only supports single tool-calls at once!") }}
    {%- endif %}
    {%- set tool_call = message.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{{- '{"name": "' + tool_call.name + '", "parameters": ' }}{{- tool_call.arguments | tojson }}{{- "}" }}{{- "<|eot_id|>" }}
  {%- else %}
{{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
    {%- if message.content is mapping or message.content is iterable and message.content is not string %}
{{- message.content | tojson }}
    {%- else %}
{{- message.content }}
    {%- endif %}
{{- "<|eot_id|>" }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
TINY_ZEPHYR = """{% for message in messages -%}
<|{{ message.role }}|>
{{ message.content }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""
MISTRAL = (
  "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
  "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}"
  "{{ m['content'] + eos_token }}{% else %}"
  "{{ raise_exception('Only user and assistant roles are supported!') }}"
  '{% endif %}{% endfor %}'
)
MISTRAL_TOOLS = """{%- if messages[0].role == "system" %}
  {%- set system = messages[0].content %}
  {%- set rest = messages[1:] %}
{%- else %}
  {%- set rest = messages %}
{%- endif %}
{%- set ns = namespace(turn=0) %}
{%- set users = rest | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for m in rest %}
  {%- if m.role == "user" %}
    {%- if tools is not none and m == users[-1] %}
{{- "[AVAILABLE_TOOLS] [" }}
      {%- for t in tools %}
{{- t | tojson }}{{- ", " if not loop.last else "" }}
      {%- endfor %}
{{- "][/AVAILABLE_TOOLS]" }}
    {%- endif %}
    {%- if loop.last and system is defined %}
{{- "[INST] " + system + "\n\n" + m.content + "[/INST]" }}
    {%- else %}
{{- "[INST] " + m.content + "[/INST]" }}
    {%- endif %}
  {%- elif m.tool_calls is defined and m.tool_calls is not none %}
{{- "[TOOL_CALLS] [" }}
    {%- for c in m.tool_calls %}
{{- c.function | tojson }}{{- "]" + eos_token if loop.last else ", " }}
    {%- endfor %}
  {%- elif m.role == "assistant" %}
{{- " " + m.content | trim + eos_token }}
  {%- elif m.role == "tool" %}
{{- '[TOOL_RESULTS] {"content": ' + m.content | string + "}[/TOOL_RESULTS]" }}
  {%- endif %}
  {%- set ns.turn = ns.turn + 1 %}
{%- endfor %}"""
ALPACA = """{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}

{% elif message.role == 'user' %}### Instruction:
{{ message.content }}

{% else %}### Response:
{{ message.content }}{{ eos_token }}

{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:
{% endif %}"""
VICUNA = (
  "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
  "{{ messages[0]['content'] ~ ' ' }}{% else %}{% set rest = messages %}"
  "{{ 'A chat between a curious user and an assistant. ' }}{% endif %}"
  "{% for m in rest %}{% if m.role == 'user' %}{{ 'USER: ' ~ m.content ~ ' ' }}"
  "{% else %}{{ 'ASSISTANT: ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}"
  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
DEEPSEEK = (
  '{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}'
  '{% endif %}{{ bos_token }}{% for message in messages %}'
  "{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n\\n' }}"
  "{% elif message['role'] == 'assistant' %}"
  "{{ 'Assistant: ' + message['content'] + eos_token }}"
  "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}{% endif %}"
  "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
OPENCHAT = (
  '{{ bos_token }}{% for m in messages %}'
  "{{ 'GPT4 Correct ' + m['role'].title() + ': ' + m['content'] + '<|end_of_turn|>' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}"
)
PHI = (
  "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}"
  "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}"
  '{% else %}{{ eos_token }}{% endif %}'
)
HERMES = """{%- macro kind(p) -%}
{%- if p.type is string -%}{{ p.type }}{%- else -%}any{%- endif -%}
{%- endmacro -%}
{{- bos_token }}
{%- if tools %}
{{- "<|im_start|>system\nYou may call: <tools> " }}
{%- for tool in tools %}
  {%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
{{- tool.name + "(" }}
  {%- for name, p in tool.parameters.properties.items() %}
{{- name + ": " + kind(p) }}{{- ", " if not loop.last }}
  {%- endfor %}
{{- ") " }}
{%- endfor %}
{{- "</tools><|im_end|>\n" }}
{%- endif %}
{%- for m in messages %}
  {%- if m.role in ["user", "system"] or (m.role == "assistant" and m.tool_calls is not defined) %}
{{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}
  {%- elif m.role == "assistant" %}
{{- '<|im_start|>' + m.role }}
    {%- for c in m.tool_calls %}
{{- '\n<tool_call>\n' }}{{- c.function | tojson(sort_keys=true) }}{{- '\n</tool_call>' }}
    {%- endfor %}
{{- '<|im_end|>\n' }}
  {%- else %}
    {%- if loop.previtem and loop.previtem.role != "tool" %}{{- '<|im_start|>tool' }}{%- endif %}
{{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
    {%- if loop.last or loop.nextitem.role != "tool" %}{{- '<|im_end|>\n' }}{%- endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
YI_BREAK = (
  "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
  '{% if loop.index0 > 3 %}{% break %}{% endif %}'
  "{{ '<|im_start|>' ~ m.role ~ '\\n' ~ (m.content or '') ~ '<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GRANITE = """{%- if messages[0]['role'] == 'system' %}
 {%- set system_message = messages[0]['content'] %}
 {%- set loop_messages = messages[1:] %}
{%- else %}
 {%- set system_message = "Today's Date: " + strftime_now('%B %d, %Y') + ".\nAnswer briefly." %}
 {%- set loop_messages = messages %}
{%- endif %}
{{- '<|start_of_role|>system<|end_of_role|>' + system_message + '<|end_of_text|>
' }}
{%- for m in loop_messages %}
{{- '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] | default('', true) + '<|end_of_text|>
' }}
 {%- if loop.last and add_generation_prompt %}
{{- '<|start_of_role|>assistant<|end_of_role|>' }}
 {%- endif %}
{%- endfor %}"""

TEMPLATES = {
  name.lower(): text
  for name, text in list(globals().items())
  if name.isupper() and isinstance(text, str)
}
TOKENS = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}

WEATHER = {
  'type': 'function',
  'function': {
    'name': 'weather',
    'description': 'The weather of a place, in °C.',
    'parameters': {
      'type': 'object',
      'properties': {'place': {'type': 'string'}, 'days': {'type': 'integer'}},
      'required': ['place'],
    },
  },
}
CALL = {'name': 'weather', 'arguments': {'place': 'Zürich <b>', 'days': 2}}


def _turn(role, content, **more):
  return {'role': role, 'content': content, **more}


DIALOGS = {
  'one': [_turn('user', 'Hi there')],
  'answered': [_turn('user', 'Hi'), _turn('assistant', 'Hello! How are you?')],
  'system': [_turn('system', '  Be short. '), _turn('user', 'Was ist 2+2?\n')],
  'long': [
    _turn('system', 'Sei höflich.'),
    _turn('user', 'a'),
    _turn('assistant', ' b '),
    _turn('user', 'c\n\nd'),
    _turn('assistant', 'e'),
    _turn('user', '👋 <|im_end|> [INST]'),
  ],
  'tools': [
    _turn('user', 'Weather?'),
    _turn('assistant', '', tool_calls=[{'type': 'function', 'function': CALL}]),
    _turn('tool', '{"t": 21}'),
    _turn('assistant', 'It is 21 °C.'),
    _turn('user', 'Thanks'),
  ],
  'two_users': [_turn('user', 'x'), _turn('user', 'y')],
}
