'use strict';

// What one scenario opens, the names it uses, and how it checks.

const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
const path = require('node:path');

// The packages lie in a cache directory, not beside this file.
const load = createRequire(path.join(process.env.INTEROP_NODE_PACKAGES, 'package.json'));
const { ConsumeResult, FilterExpression, Producer, PushConsumer, SimpleConsumer } =
  load('rocketmq-client-nodejs');

const PATIENCE = 40_000; // ms; the longest any awaited event may take
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));
const silent = { debug() {}, info() {}, warn() {}, error() {} };

class World {
  constructor(scenario, endpoint, run) {
    this.endpoint = endpoint;
    this.topic = `${run}-${scenario.replace(/[^A-Za-z0-9]+/g, '-')}`;
    this.group = `group-${this.topic}`;
    this.tls = false;
  }

  options(more) {
    // A certificate is for a name, not for an address.
    const endpoints = this.tls ? this.endpoint.replace('127.0.0.1', 'localhost') : this.endpoint;
    const common = { endpoints, sslEnabled: this.tls, namespace: '', logger: silent };
    return { ...common, requestTimeout: 8000, ...more };
  }

  async producer(checker) {
    const producer = new Producer(this.options({ topics: [this.topic], checker }));
    await producer.startup();
    return producer;
  }

  async simple({ filter = '*', topic = this.topic, group = this.group } = {}) {
    const consumer = new SimpleConsumer(this.options({
      consumerGroup: group,
      awaitDuration: 10_000,
      subscriptions: new Map([[topic, filter]]),
    }));
    await consumer.startup();
    return consumer;
  }

  // Starts a push consumer; judge says whether a message is done with.
  async push(judge = () => true) {
    const inbox = new Inbox();
    const messageListener = {
      consume(message) {
        inbox.put(message);
        return judge(message) ? ConsumeResult.SUCCESS : ConsumeResult.FAILURE;
      },
    };
    const consumer = new PushConsumer(this.options({
      consumerGroup: this.group,
      subscriptions: new Map([[this.topic, FilterExpression.SUB_ALL]]),
      messageListener,
    }));
    await consumer.startup();
    return inbox;
  }

  message(body, more) {
    return { topic: this.topic, body: Buffer.from(body), ...more };
  }
}

class Inbox {
  constructor() {
    this.waiting = [];
    this.put = message => this.waiting.push(message);
  }

  async next() {
    for (const end = Date.now() + PATIENCE; !this.waiting.length;) {
      assert(Date.now() < end, `nothing arrived in ${PATIENCE / 1000} s`);
      await sleep(10);
    }
    return this.waiting.shift();
  }

  async body() {
    return text(await this.next());
  }

  async nothing(ms) {
    await sleep(ms);
    assert.deepEqual(this.waiting.map(text), []);
  }
}

// Receives until `count` messages are there.
async function receive(consumer, count, { batch = 32, ack = true, invisible = 15_000 } = {}) {
  const found = [];
  for (const end = Date.now() + PATIENCE; found.length < count && Date.now() < end;) {
    let messages;
    try {
      messages = await consumer.receive(batch, invisible);
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(200);
      continue;
    }
    for (const message of messages) {
      found.push(message);
      if (ack) await consumer.ack(message);
    }
  }
  assert.equal(found.length, count);
  return found;
}

// Does it again until it works.
async function persist(act) {
  for (const end = Date.now() + PATIENCE; ;) {
    try {
      return await act();
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(200);
    }
  }
}

// Checks that it is refused, with this code if one is given; what the refusal said.
async function expect(code, act) {
  const refusal = await act().then(() => null, error => error);
  assert(refusal, 'not refused');
  for (let cause = refusal; cause; cause = cause.cause) {
    if (!code || cause.code === code || cause.message.includes(code)) return cause.message.slice(0, 200);
  }
  throw refusal;
}

const text = message => message.body.toString();
const numbered = count => Array.from({ length: count }, (_, i) => `${i}`);

module.exports = { FilterExpression, World, expect, numbered, persist, receive, sleep, text };
