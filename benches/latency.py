#!/usr/bin/env python3
"""From a record's arrival at the broker to its receipt, which is sent after the commit that makes it queryable,
at a steady load. Times are the broker's own (CreateTime of the record and of the receipt).

    latency.py BROKERS [--rate 10000] [--seconds 60] [--algorithm EdDSA]

Needs confluent-kafka (PyPI) and a release build; `ci/kafka/broker.sh up` starts a broker.
"""
import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", Path(__file__).parents[1] / "target"))
BINARY = os.environ.get("RUMLEDGER_BIN", TARGET / "release" / "rumledger")
PARTITIONS = 4


def rumledger(*args):
    done = subprocess.run([str(a) for a in (BINARY, "-q", *args)], stdout=subprocess.PIPE, check=False)
    assert done.returncode in (0, 3), args
    return done.stdout.decode()


def messages(brokers, topic, wait=5):
    """Every message of a topic, until none came for so long."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"bench-{os.getpid()}", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
    last = time.monotonic()
    while time.monotonic() - last < wait:
        for message in consumer.consume(10_000, 0.5):
            assert not message.error(), message.error()
            last = time.monotonic()
            yield message
    consumer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers")
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--algorithm", default="EdDSA")
    options = parser.parse_args()
    reports = options.rate * options.seconds
    mark = f"latency-{os.getpid()}"
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        rumledger("fleet", "generate", "--brokers", options.brokers, "--topic", f"{mark}-all", "--partitions", PARTITIONS,
                  "--out", place, "--reports", reports, "--devices", max(reports // 130, 60), "--algorithm", options.algorithm,
                  "--duplicates", 0, "--broken", 0)
        stock = [(m.key(), m.value(), m.headers(), m.partition()) for m in messages(options.brokers, f"{mark}-all")]
        assert len(stock) == reports, len(stock)
        admin = AdminClient({"bootstrap.servers": options.brokers})
        for name in (mark, f"{mark}-receipts"):
            admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result()
        lake = place / "lake"
        rumledger("--lake", lake, "book", "import", place / "book")
        worker = subprocess.Popen(
            [str(a) for a in (BINARY, "-q", "--lake", lake, "ingest", "kafka", "--brokers", options.brokers, "--group", mark,
                              "--topic", mark, "--receipts-topic", f"{mark}-receipts", "--trust-topic", "",
                              "--listen", "off")], stdout=subprocess.DEVNULL)
        try:
            time.sleep(5)
            producer = Producer({"bootstrap.servers": options.brokers, "linger.ms": 5, "acks": "all"})
            started, step = time.monotonic(), options.rate // 100
            for first in range(0, reports, step):
                for key, value, headers, partition in stock[first:first + step]:
                    producer.produce(mark, value, key, partition=partition, headers=headers)
                producer.poll(0)
                time.sleep(max(0, started + (first + step) / options.rate - time.monotonic()))
            producer.flush()
            produced = time.monotonic() - started
            sent = {(m.partition(), m.offset()): m.timestamp()[1] for m in messages(options.brokers, mark)}
            waits = []
            for receipt in messages(options.brokers, f"{mark}-receipts"):
                at = json.loads(receipt.value())["position"]
                partition, offset = int(at["partition"]), int(at["offset"])
                waits.append(receipt.timestamp()[1] - sent[(partition, offset)])
        finally:
            worker.terminate()
            worker.wait()
        count = rumledger("--lake", lake, "--format", "csv", "sql", "SELECT count(*) FROM journal").split()[1]
    assert len(waits) == reports == int(count), (len(waits), reports, count)
    waits.sort()
    at = {p: waits[min(len(waits) - 1, len(waits) * p // 1000)] for p in (500, 990, 999)}
    print(f"{reports:,} reports in {produced:.1f} s ({reports / produced:,.0f}/s), {options.algorithm}: "
          f"p50 {at[500]} ms, p99 {at[990]} ms, p99.9 {at[999]} ms, longest {waits[-1]} ms")


if __name__ == "__main__":
    main()
