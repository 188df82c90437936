"""Write tests/golden/java-<version>-{stopped,killed}.zip: stores as the Java broker leaves them,
and the answers it gave. Run as ``python -m interop.store.golden``; needs what the suite needs."""

from __future__ import annotations

import json
import tempfile
import time
import zipfile
from pathlib import Path

from interop.remoting import Remote
from interop.servers import JAVA_VERSION, JavaServer
from interop.store.load import QUEUES, Load, seed
from interop.store.questions import ask_everything, plain

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"
PORT = 19811
# Small files: the log, every busy queue and the key index have several. A broker reads them with
# the same sizes only.
SETTINGS = {
    "brokerName": "broker-a",
    "mappedFileSizeCommitLog": 32 * 1024,
    "mappedFileSizeConsumeQueue": 10 * 20,
    "mapperFileSizeBatchConsumeQueue": 10 * 46,
    "maxHashSlotNum": 100,
    "maxIndexNum": 120,
    "flushConsumerOffsetInterval": 1000,
    "flushDelayOffsetInterval": 1000,
}
ROUNDS = 2
MESSAGES = 60  # in each round
SAVED_S = 12  # a Java broker saves offsets ten seconds after its start


def make(name: str, *, kill: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="firearrow-golden-") as folder:
        store = Path(folder) / "store"
        seed(store)
        load = Load(MESSAGES)
        started = time.monotonic()
        with JavaServer(0, PORT, settings=SETTINGS, store=store) as java:
            with Remote(java.broker) as remote:
                for _ in range(ROUNDS):
                    load.write(remote)
                    time.sleep(1.5)
                answers = ask_everything(remote, QUEUES)
            if kill:
                time.sleep(max(0.0, started + SAVED_S - time.monotonic()))
                java.kill()
        document = {
            "broker": f"org.apache.rocketmq:rocketmq-broker:{JAVA_VERSION}",
            "made by": f"python -m {__spec__.name}",
            "settings": SETTINGS,
            "answers": {question: plain(answer) for question, answer in answers.items()},
        }
        GOLDEN.mkdir(exist_ok=True)
        target = GOLDEN / f"java-{JAVA_VERSION}-{name}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.writestr("answers.json", json.dumps(document, indent=0, sort_keys=True))
            for path in sorted(store.rglob("*")):
                # The timer's files are large and empty, RocksDB's are of features not in use.
                left_out = path.relative_to(store).parts[0].startswith(("timer", "rocksdb"))
                if path.is_file() and not left_out:
                    archive.write(path, f"store/{path.relative_to(store)}")
    print(f"{target}: {target.stat().st_size} bytes, {len(answers)} answers")


if __name__ == "__main__":
    make("stopped", kill=False)
    make("killed", kill=True)
