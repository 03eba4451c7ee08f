"""The words around a question: one place for training and inference alike."""

from typing import Literal

Task = Literal["answer", "describe", "classify"]

SCENE_PLACEHOLDER = "<scene>"

SYSTEM: dict[Task, str] = {
    "answer": "You see a 3D scan of an indoor scene. Answer the question about it.",
    "describe": "You see one object of a 3D scan of an indoor scene. Describe it in one sentence.",
    "classify": "You see one object of a 3D scan of an indoor scene. Name it.",
}

DESCRIBE_OBJECT = "Describe this object."


def conversation(
    question: str, task: Task, *, system_role: bool = True, scene: bool = True
) -> list[dict[str, str]]:
    """The messages of one question for a chat template, with one placeholder for the scene.

    Without `system_role` the user's turn begins with the system text. Without `scene` there is no
    placeholder: a blind question.
    """
    turn = f"{SCENE_PLACEHOLDER}\n{question}" if scene else question
    if not system_role:
        return [{"role": "user", "content": f"{SYSTEM[task]}\n{turn}"}]
    return [{"role": "system", "content": SYSTEM[task]}, {"role": "user", "content": turn}]


PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
"""For language models whose tokenizer brings no chat template."""
