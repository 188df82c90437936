"""Generated message classes (``make proto``) in a descriptor pool of their own, so that an official
client in the same process, which brings the same names, does not collide with them."""

from __future__ import annotations

from typing import Final

from google.protobuf import descriptor_pool, duration_pb2, timestamp_pb2

POOL: Final = descriptor_pool.DescriptorPool()
for _known in (duration_pb2, timestamp_pb2):
    POOL.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
