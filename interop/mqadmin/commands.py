"""The mqadmin commands that are compared, in order: later ones see what earlier ones did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """One command; ``{broker}``, ``{name}``, ``{id}``, ``{key}``, ``{traced}`` are filled in."""

    words: str
    title: str = ""
    unordered: bool = False  # lines come in the order of a hash table
    keys_only: bool = False  # of lines "key : value"; the values are the server's own
    subset: bool = False  # our keys must be among Java's, which has settings of its own
    ours: tuple[str, ...] = ()  # lines that begin so are not compared: Java does not know them
    counts: bool = False  # its numbers depend on the moment of the last sample
    rates: str = ""  # a pattern of numbers that do
    may_come: str = ""  # what marks lines that are there once the client has come so far
    compared: bool = True

    @property
    def name(self) -> str:
        return self.title or self.words.split()[0]


TOPIC = "MqadminTopic"
GROUP = "MqadminGroup"
PRODUCERS = "MqadminProducers"
COUNT = 10

COMMANDS = [
    Command("updateTopic -c DefaultCluster -t MqadminTopic -r 4 -w 4"),
    Command(
        "updateTopic -b {broker} -t MqadminOther -r 2 -w 2 -a +message.type=FIFO",
        "updateTopic, attributes",
    ),
    Command("updateTopic -b {broker} -t TBW102", "updateTopic, system topic"),
    Command("updateTopic -b {broker} -t MqadminOther -a +no.such=1", "updateTopic, bad attribute"),
    Command("updateSubGroup -c DefaultCluster -g MqadminGroup"),
    Command("updateSubGroup -b {broker} -g MqadminSecond -r 3 -d false", "updateSubGroup, options"),
    Command("@produce {namesrv} MqadminProducers MqadminTopic 10", compared=False),
    Command("@consume {namesrv} MqadminGroup MqadminTopic 10", compared=False),
    Command("clusterList"),
    Command("topicList", unordered=True),
    Command("topicList -c", "topicList with groups", unordered=True),
    Command("topicRoute -t MqadminTopic"),
    Command("topicRoute -t MqadminTopic -l", "topicRoute, list"),
    Command("topicRoute -t NoSuchTopic", "topicRoute, unknown"),
    Command("topicRoute -t RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC", "topicRoute, system topic"),
    Command("topicRoute -t RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC", "topicRoute, system topic 2"),
    Command("topicClusterList -t MqadminTopic"),
    Command("topicStatus -t MqadminTopic"),
    Command("topicStatus -t NoSuchTopic", "topicStatus, unknown"),
    Command("brokerStatus -b {broker}", keys_only=True, ours=("grpcConnections", "grpcRefused")),
    Command("brokerConsumeStats -b {broker}", unordered=True),
    Command("consumerProgress", unordered=True, rates=r"\d+(?= \d+$)"),
    # The retry topic stands there once the client has committed it, some time after its start.
    Command("consumerProgress -g MqadminGroup", "consumerProgress, group", may_come="%RETRY%"),
    Command("consumerProgress -g NoSuchGroup", "consumerProgress, unknown"),
    Command("consumerConnection -g MqadminGroup"),
    Command("consumerConnection -g NoSuchGroup", "consumerConnection, unknown"),
    Command("producerConnection -g MqadminProducers -t MqadminTopic"),
    Command("producerConnection -g NoSuchGroup -t MqadminTopic", "producerConnection, unknown"),
    Command("producer -b {broker}", unordered=True),
    Command("consumerStatus -g MqadminGroup", unordered=True),
    Command("getConsumerConfig -g MqadminGroup", unordered=True),
    Command("queryMsgById -i {id} -t MqadminTopic"),
    Command("queryMsgByKey -t MqadminTopic -k key3"),
    Command("queryMsgByKey -t MqadminTopic -k nokey", "queryMsgByKey, unknown"),
    Command("queryMsgByUniqueKey -t MqadminTopic -i {key}"),
    Command("queryMsgByOffset -t MqadminTopic -b {name} -i 1 -o 1"),
    Command("queryMsgByOffset -t MqadminTopic -b {name} -i 1 -o 77", "queryMsgByOffset, beyond"),
    Command("queryCq -t MqadminTopic -q 1 -i 0 -c 3 -b {broker}"),
    Command("queryCq -t MqadminTopic -q 1 -i 0 -c 3 -b {broker} -g MqadminGroup", "queryCq, group"),
    Command("sendMessage -t MqadminTopic -p hello -b {name} -i 2 -k sent -c tagS"),
    Command("consumeMessage -t MqadminTopic -b {name} -i 2 -o 0 -c 2"),
    Command("printMsg -t MqadminTopic -d true", unordered=True),
    Command("statsAll -t MqadminTopic", counts=True),
    Command(
        "updateTopic -b {broker} -t MqadminBatches -r 1 -w 1 -a +queue.type=BatchCQ",
        "updateTopic, batch queues",
    ),
    Command("@batches MqadminBatches 3 5", compared=False),
    Command("topicStatus -t MqadminBatches", "topicStatus, batch queues"),
    Command("queryCq -t MqadminBatches -q 0 -i 0 -c 2 -b {broker}", "queryCq, batch queues"),
    Command("queryMsgByKey -t MqadminBatches -k key7", "queryMsgByKey, batch queues"),
    Command(
        "queryMsgByOffset -t MqadminBatches -b {name} -i 0 -o 7", "queryMsgByOffset, batch queues"
    ),
    Command("consumeMessage -t MqadminBatches -b {name} -i 0 -o 0 -c 9", "batches are consumed"),
    Command("haStatus -b {broker}"),
    Command(
        "getBrokerConfig -b {broker}",
        keys_only=True,
        subset=True,
        ours=("dedupKeysMax", "grpcAuthenticationEnabled", "grpcServerPort", "grpcUsersFile"),
    ),
    Command("updateBrokerConfig -b {broker} -k fileReservedTime -v 48"),
    Command(
        "updateBrokerConfig -b {broker} -k brokerConfigPath -v x", "updateBrokerConfig, refused"
    ),
    Command("updateTopicPerm -b {broker} -t MqadminTopic -p 4"),
    Command("topicRoute -t MqadminTopic", "topicRoute, read only"),
    Command("updateTopicPerm -b {broker} -t MqadminTopic -p 6", "updateTopicPerm, back"),
    Command(
        "updateTopic -b {broker} -t MqadminLite -r 4 -w 4 "
        "-a +message.type=LITE,+lite.topic.expiration=30",
        "updateTopic, lite",
    ),
    Command(
        "updateSubGroup -b {broker} -g MqadminLiteGroup --attributes +lite.bind.topic=MqadminLite",
        "updateSubGroup, lite",
    ),
    Command("@lite {broker} MqadminLite MqadminLiteGroup", "lite client"),
    # Queues and offsets that a broker has of its own differ.
    Command("getBrokerLiteInfo -b {broker} -d", rates=r"\d+ \d+(?= \d+$)"),
    Command("getParentTopicInfo -p MqadminLite"),
    Command("getParentTopicInfo -p MqadminTopic", "getParentTopicInfo, of another type"),
    Command("getLiteTopicInfo -p MqadminLite -l a -s"),
    Command("getLiteTopicInfo -p MqadminLite -l nothing -s", "getLiteTopicInfo, unknown"),
    Command("getLiteClientInfo -p MqadminLite -g MqadminLiteGroup -c lite-client -s"),
    Command(
        "getLiteClientInfo -p MqadminLite -g MqadminLiteGroup -c nobody -s",
        "getLiteClientInfo, unknown",
    ),
    Command("getLiteGroupInfo -p MqadminLite -g MqadminLiteGroup", rates=r"\d+(?= s ago)"),
    Command(
        "getLiteGroupInfo -p MqadminLite -g MqadminLiteGroup -l a",
        "getLiteGroupInfo, lite topic",
        rates=r"\d+(?= s ago)",
    ),
    Command("getLiteGroupInfo -p MqadminLite -g MqadminGroup", "getLiteGroupInfo, other group"),
    Command("triggerLiteDispatch -p MqadminLite -g MqadminLiteGroup"),
    Command("@stop", compared=False),
    Command("consumerProgress -g MqadminGroup", "consumerProgress, offline", may_come="%RETRY%"),
    Command("resetOffsetByTime -g MqadminGroup -t MqadminTopic -s 1", unordered=True),
    Command("consumerProgress -g MqadminGroup", "consumerProgress, reset", may_come="%RETRY%"),
    Command(
        "resetOffsetByTime -g MqadminGroup -t MqadminTopic -s -1 -b {broker} -q 1 -o 2",
        "resetOffsetByTime, queue",
    ),
    Command(
        "resetOffsetByTime -g NoSuchGroup -t MqadminTopic -s now", "resetOffsetByTime, unknown"
    ),
    Command("cloneGroupOffset -s MqadminGroup -d MqadminSecond -t MqadminTopic -o true"),
    Command("consumerProgress -g MqadminSecond", "consumerProgress, cloned"),
    Command("setConsumeMode -b {broker} -t MqadminTopic -g MqadminGroup -m POP -q 2"),
    Command(
        "setConsumeMode -b {broker} -t NoSuchTopic -g MqadminGroup -m POP",
        "setConsumeMode, unknown",
    ),
    Command("@trace {namesrv} MqadminTracers MqadminTraced", compared=False),
    Command("queryMsgTraceById -i {traced}", rates=r"\d+(?=ms)"),
    Command("queryMsgTraceById -i NOSUCHID", "queryMsgTraceById, unknown"),
    Command("cleanUnusedTopic -b {broker}"),
    Command("cleanExpiredCQ -b {broker}"),
    Command("deleteExpiredCommitLog -b {broker}"),
    Command("deleteSubGroup -b {broker} -g MqadminSecond -r true"),
    Command("deleteTopic -c DefaultCluster -t MqadminTopic"),
    Command("topicStatus -t MqadminTopic", "topicStatus, deleted"),
    Command("topicList", "topicList, at the end", unordered=True),
]
