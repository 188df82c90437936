"""Requests about consumer groups (behaviour.md 21.2)."""

from __future__ import annotations

import msgspec

from firearrow.broker.admin.attributes import GROUP_ATTRIBUTES, AttributeChangeError, apply
from firearrow.broker.groups import Groups, encode_group
from firearrow.broker.offsets import ConsumerOffsets
from firearrow.codec import lenient_json
from firearrow.model import codes, names
from firearrow.model.group import Group
from firearrow.model.retry_policy import read_retry_policy
from firearrow.model.topic import QUEUES_MAX
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.requests import DeleteGroup, GroupForbidden, GroupName, TablePage


class GroupAdmin:
    """Handlers."""

    def __init__(self, groups: Groups, offsets: ConsumerOffsets) -> None:
        self._groups = groups
        self._offsets = offsets

    def update(self, request: Request[NoFields]) -> Answer:
        """UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200)."""
        try:
            group = msgspec.convert(lenient_json.loads(request.body), Group)
        except (ValueError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable group: {error}")
        return self._update([group])

    def update_list(self, request: Request[NoFields]) -> Answer:
        """UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225)."""
        try:
            body = lenient_json.loads(request.body)
            groups = msgspec.convert(body["groupConfigList"], list[Group])
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable list of groups: {error}")
        return self._update(groups)

    def _update(self, wanted: list[Group]) -> Answer:
        """Create or change all, or none; their attributes are changes to what there is."""
        groups = []
        for group in wanted:
            error = names.group_error(group.name) or _shape_error(group)
            if error is not None:
                return Reply(codes.INVALID_PARAMETER, error)
            existing = self._groups.table.get(group.name)
            try:
                attributes = apply(
                    existing.attributes if existing else {},
                    group.attributes,
                    GROUP_ATTRIBUTES,
                    creating=existing is None,
                )
            except AttributeChangeError as change_error:
                return Reply(codes.SYSTEM_ERROR, str(change_error))
            groups.append(msgspec.structs.replace(group, attributes=attributes))
        for group in groups:
            self._groups.update(group)
        return Reply()

    def delete(self, request: Request[DeleteGroup]) -> Answer:
        """DELETE_SUBSCRIPTIONGROUP (207)."""
        self._groups.delete(request.fields.group)
        if request.fields.clean_offset:
            self._offsets.delete_group(request.fields.group)
        return Reply()

    def get(self, request: Request[GroupName]) -> Answer:
        """GET_SUBSCRIPTIONGROUP_CONFIG (352)."""
        group = self._groups.find(request.fields.group)
        if group is None:
            return Reply(
                codes.SUBSCRIPTION_GROUP_NOT_EXIST,
                f"No group in this broker. group: {request.fields.group}",
            )
        return Reply(body=encode_group(group))

    def get_all(self, request: Request[TablePage]) -> Answer:
        """GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201)."""
        ext = {"totalGroupNum": str(len(self._groups.table))}
        return Reply(ext=ext, body=b"".join(self._groups.chunks()))

    def forbid(self, request: Request[GroupForbidden]) -> Answer:
        """UPDATE_AND_GET_GROUP_FORBIDDEN (353)."""
        fields = request.fields
        if fields.readable is not None:
            self._groups.set_may_read(fields.group, fields.topic, fields.readable)
        return Reply(
            body=bodies.encode(
                {
                    "group": fields.group,
                    "readable": self._groups.may_read(fields.group, fields.topic),
                    "topic": fields.topic,
                }
            )
        )


def _shape_error(group: Group) -> str | None:
    if not 0 <= group.retry_queues <= QUEUES_MAX:
        return f"{group.retry_queues} retry queues; the limit is {QUEUES_MAX}"
    try:
        read_retry_policy(group.retry_policy)
    except ValueError as error:
        return f"groupRetryPolicy: {error}"
    return None
