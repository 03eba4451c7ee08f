"""The words around a question: one place for training and inference alike."""

from collections.abc import Sequence
from typing import Literal

Task = Literal["answer", "describe", "classify"]

SCENE_PLACEHOLDER = "<scene>"

SYSTEM: dict[Task, str] = {
    "answer": "You see a 3D scan of an indoor scene. Answer the question about it.",
    "describe": "You see a 3D scan of an indoor scene. Describe the marked object in one sentence.",
    "classify": "You see a 3D scan of an indoor scene. Name the marked object.",
}

DESCRIBE_OBJECT = "Describe this object."
NAME_OBJECT = "What is this object?"


def conversation(
    questions: Sequence[str],
    answers: Sequence[str],
    task: Task,
    *,
    system_role: bool = True,
    scene: bool = True,
) -> list[dict[str, str]]:
    """The messages of some questions and of the answers to all but the last, for a chat template.

    The first question follows one placeholder for the scene; without `scene` there is none: a blind
    question. Without `system_role` the user's first turn begins with the system text.
    """
    first = f"{SCENE_PLACEHOLDER}\n{questions[0]}" if scene else questions[0]
    messages = [{"role": "system", "content": SYSTEM[task]}, {"role": "user", "content": first}]
    if not system_role:
        messages = [{"role": "user", "content": f"{SYSTEM[task]}\n{first}"}]
    for answer, question in zip(answers, questions[1:], strict=True):
        messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": question})
    return messages


PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""For language models whose tokenizer brings no chat template."""
