'use strict';

// The server under test, and what a scenario needs to send, receive and wait.

const assert = require('node:assert/strict');
const { createRequire } = require('node:module');
const path = require('node:path');

// The packages lie in a cache directory, not beside this file.
const load = createRequire(path.join(process.env.INTEROP_NODE_PACKAGES, 'package.json'));
const { Consumer, Message, Producer } = load('ali-ons');

const PATIENCE = 15_000; // ms; the longest any awaited event may take
const sleep = ms => new Promise(resolve => setTimeout(resolve, ms));

const silent = { debug() {}, info() {}, warn() {}, error() {} };

async function until(what, done, patience = PATIENCE) {
  for (const end = Date.now() + patience; !(await done());) {
    assert(Date.now() < end, `waited ${patience / 1000} s for ${what}`);
    await sleep(20);
  }
}

class World {
  constructor(namesrv, broker, run) {
    this.namesrv = namesrv;
    this.broker = broker;
    this.run = run;
    this.numbers = 0;
  }

  name(what) {
    return `node-${what}-${this.run}-${++this.numbers}`;
  }

  // The client is made for a cloud that hands out addresses over HTTP; with nameSrv it asks none.
  options(more) {
    return {
      nameSrv: this.namesrv,
      httpclient: {},
      logger: silent,
      instanceName: this.name('instance'),
      pollNameServerInteval: 500,
      rebalanceInterval: 500,
      ...more,
    };
  }

  // A topic of 4 queues and a producer. The client's send() refuses a topic without a route before
  // the broker could create it, so the client's own administration call does.
  async topic(what) {
    const topic = this.name(what);
    const producer = await this.producer();
    await producer._mqClient.createTopic(this.broker, 'TBW102', {
      topicName: topic,
      readQueueNums: 4,
      writeQueueNums: 4,
      perm: 6,
      topicFilterType: 'SINGLE_TAG',
      topicSysFlag: 0,
      order: false,
    }, 3000);
    await this.route(producer, topic);
    return [topic, producer];
  }

  async route(producer, topic) {
    const ask = () => producer._mqClient.getTopicRouteInfoFromNameServer(topic, 3000);
    await until(`the route of ${topic}`, () => ask().then(() => true, () => false));
  }

  async producer() {
    const producer = new Producer(this.options({ producerGroup: this.name('producers') }));
    producer.on('error', () => {}); // what matters is what send() throws
    await producer.ready();
    return producer;
  }

  // Hands every message to receive; Consumer.ACTION_RETRY from it asks for redelivery.
  async push(topic, receive, { group, expression = '*', ...more } = {}) {
    const consumer = new Consumer(this.options({
      consumerGroup: group || this.name('group'),
      consumeFromWhere: 'CONSUME_FROM_FIRST_OFFSET',
      ...more,
    }));
    consumer.on('error', () => {});
    consumer.subscribe(topic, expression, async (message, queue) => receive(message, queue));
    await consumer.ready();
    return consumer;
  }

  // Reads a topic from its start with a new group until exactly these bodies arrived.
  async arrivals(topic, bodies, expression) {
    const inbox = new Inbox();
    const consumer = await this.push(topic, inbox.put, { expression });
    await inbox.expect(bodies);
    await consumer.close();
    return inbox.messages;
  }
}

class Inbox {
  constructor() {
    this.messages = [];
    this.put = (message, queue) => {
      this.messages.push(Object.assign(message, { queue, at: Date.now() }));
    };
  }

  get bodies() {
    return this.messages.map(message => message.body.toString());
  }

  // Waits for exactly these bodies, each once, in any order.
  async expect(bodies) {
    await until('messages', () => this.messages.length >= bodies.length).catch(() => {});
    await sleep(200); // what comes too often comes now
    assert.deepEqual(this.bodies.sort(), [...bodies].sort());
  }
}

const bodies = (what, count) => Array.from({ length: count }, (_, i) => `${what} ${i} é`);

module.exports = { Consumer, Inbox, Message, World, bodies, sleep, until };
