"""What the store can be told; names are RocketMQ's (``MessageStoreConfig``) in snake case."""

from __future__ import annotations

import msgspec


class StoreSettings(msgspec.Struct, kw_only=True):
    """Sizes are fixed at open; everything else is read each time it is needed."""

    store_host: bytes = bytes([127, 0, 0, 1]) + (10911).to_bytes(4)  # packed address
    mapped_file_size_commit_log: int = 1024 * 1024 * 1024
    mapped_file_size_consume_queue: int = 300_000 * 20
    mapper_file_size_batch_consume_queue: int = 300_000 * 46
    flush_disk_type: str = "ASYNC_FLUSH"
    flush_interval_commit_log: int = 500  # ms
    sync_flush_timeout: int = 5000  # ms
    flush_interval_consume_queue: int = 1000  # ms
    flush_consume_queue_thorough_interval: int = 60_000  # ms
    max_message_size: int = 4 * 1024 * 1024
    max_transfer_bytes_on_message_in_memory: int = 256 * 1024
    max_transfer_count_on_message_in_memory: int = 32
    max_transfer_bytes_on_message_in_disk: int = 64 * 1024
    max_transfer_count_on_message_in_disk: int = 8
    max_filter_message_size: int = 16_000
    access_message_in_memory_max_ratio: int = 40  # percent of memory
    message_index_enable: bool = True
    enable_lmq: bool = False  # both: messages are dispatched to light message queues
    enable_multi_dispatch: bool = False
    max_hash_slot_num: int = 5_000_000
    max_index_num: int = 20_000_000
    max_msgs_num_batch: int = 64
    compaction_mapped_file_size: int = 100 * 1024 * 1024
    compaction_cq_mapped_file_size: int = 10 * 1024 * 1024
    compaction_schedule_internal: int = 15 * 60 * 1000  # ms
    max_offset_map_size: int = 100 * 1024 * 1024  # bytes
    file_reserved_time: int = 72  # hours
    delete_when: str = "04"
    clean_resource_interval: int = 10_000  # ms
    delete_file_batch_max: int = 10
    clean_file_forcibly_enable: bool = True
    disk_max_used_space_ratio: int = 75
    disk_space_clean_forcibly_ratio: int = 85
    disk_space_warning_level_ratio: int = 90
