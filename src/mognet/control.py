"""What nodes and clients say to each other, beside the work itself."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

CONTROL = "control"
"""The channel that every worker listens on."""


class RevokeMessage(BaseModel):
    """Stop what runs of this job and of all jobs under it."""

    kind: Literal["revoke"] = "revoke"
    id: UUID


class StatusQuery(BaseModel):
    """Every node is to send a :class:`NodeStatus` to a channel."""

    kind: Literal["status"] = "status"
    reply_to: str


class Status(BaseModel):
    """What a node does."""

    running_request_ids: list[UUID]
    queues: list[str] = []
    slots: int = 0


class NodeStatus(BaseModel):
    """A node's answer."""

    node_id: str
    payload: Status


class QueueStats(BaseModel):
    """How much waits in a queue, and how many workers listen on it."""

    queue_name: str
    message_count: int
    consumer_count: int


Message = Annotated[RevokeMessage | StatusQuery, Field(discriminator="kind")]

_messages: TypeAdapter[RevokeMessage | StatusQuery] = TypeAdapter(Message)


def read_message(body: bytes) -> RevokeMessage | StatusQuery | None:
    """The message of a signal's body; None if it is none that this version knows."""
    try:
        return _messages.validate_json(body)
    except ValidationError:
        return None


def write(message: BaseModel) -> bytes:
    """A message as bytes."""
    return message.model_dump_json().encode()
