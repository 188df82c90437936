'use strict';

// Scenarios of the Node remoting client. Prints one JSON line per scenario; the broker restart
// comes last: {"request":"restart"} asks for it and a line on standard input answers.

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const readline = require('node:readline');
const { parseArgs } = require('node:util');
const { Consumer, Inbox, Message, World, bodies, sleep, until } = require('./world.js');

const CLIENT = 'Node ali-ons 3.12.0';

function made(topic, body, { tags = 'T', keys, delayTimeLevel, shardingKey, user } = {}) {
  const message = new Message(topic, tags, body);
  if (keys) message.keys = keys;
  if (delayTimeLevel) message.delayTimeLevel = delayTimeLevel;
  if (shardingKey) message.shardingKey = shardingKey;
  if (user) message.properties.user = user;
  return message;
}

const scenarios = {
  async 'send sync'(world) {
    const [topic, producer] = await world.topic('sync');
    const want = bodies('sync', 20);
    const sent = new Map();
    for (const [i, body] of want.entries()) {
      const result = await producer.send(
        made(topic, body, { tags: `T${i % 3}`, keys: [`k${i}`, 'all'], user: `value ${i}` }));
      assert.equal(result.sendStatus, 'SEND_OK');
      sent.set(body, result);
    }
    for (const m of await world.arrivals(topic, want)) {
      const i = want.indexOf(m.body.toString());
      assert.deepEqual([m.tags, m.keys, m.properties.user, m.topic, m.reconsumeTimes],
        [`T${i % 3}`, `k${i} all`, `value ${i}`, topic, 0]);
      const { messageQueue, queueOffset } = sent.get(want[i]);
      assert.deepEqual([m.queueId, Number(m.queueOffset)], [Number(messageQueue.queueId), queueOffset]);
    }
  },

  async 'send async'(world) {
    const [topic, producer] = await world.topic('async');
    const want = bodies('async', 50);
    await producer.send(made(topic, want[0]));
    await Promise.all(want.slice(1).map(body => producer.send(made(topic, body))));
    await world.arrivals(topic, want);
  },

  async 'send by selector'(world) {
    const [topic, producer] = await world.topic('selector');
    // This client's own choice of a queue; it forgets the choice when it is queue 0.
    const queueOf = key => crypto.createHash('md5').update(key).digest().readUInt32BE() % 4;
    const keys = bodies('order', 20).filter(key => queueOf(key) !== 0).slice(0, 6);
    const want = bodies('selector', 24);
    for (const [i, body] of want.entries()) {
      await producer.send(made(topic, body, { shardingKey: keys[i % 6] }));
    }
    for (const m of await world.arrivals(topic, want)) {
      assert.equal(m.queueId, queueOf(m.shardingKey));
    }
  },

  async 'compressed body'(world) {
    const [topic, producer] = await world.topic('compressed');
    const body = 'a long body '.repeat(2000);
    await producer.send(made(topic, body));
    const [message] = await world.arrivals(topic, [body]);
    assert(message.storeSize < body.length / 2, `stored in ${message.storeSize} bytes`);
  },

  async 'push concurrent'(world) {
    const [topic, producer] = await world.topic('concurrent');
    const want = bodies('concurrent', 200);
    await producer.send(made(topic, want[0]));
    const inbox = new Inbox();
    const consumer = await world.push(topic, inbox.put, { parallelConsumeLimit: 8 });
    await Promise.all(want.slice(1).map(body => producer.send(made(topic, body))));
    await inbox.expect(want);
    await consumer.close();
  },

  async 'push broadcast'(world) {
    const [topic, producer] = await world.topic('broadcast');
    const want = bodies('broadcast', 10);
    for (const body of want) await producer.send(made(topic, body));
    const group = world.name('group');
    const boxes = [new Inbox(), new Inbox()];
    const members = await Promise.all(
      boxes.map(box => world.push(topic, box.put, { group, isBroadcast: true })));
    for (const box of boxes) await box.expect(want);
    for (const member of members) await member.close();
  },

  async tags(world) {
    const [topic, producer] = await world.topic('tags');
    const want = bodies('tags', 12);
    for (const [i, body] of want.entries()) {
      await producer.send(made(topic, body, { tags: 'ABC'[i % 3] }));
    }
    await world.arrivals(topic, want.filter((_, i) => i % 3 !== 1), 'A || C');
  },

  async 'SQL92 filter'(world) {
    const [topic, producer] = await world.topic('sql');
    const want = bodies('sql', 10);
    for (const [i, body] of want.entries()) {
      await producer.send(made(topic, body, { user: `${i}` }));
    }
    await world.arrivals(topic, want.slice(4), { expressionType: 'SQL92', subString: 'user > 3' });
  },

  async 'committed offset'(world) {
    const [topic, producer] = await world.topic('offset');
    const group = world.name('group');
    const want = bodies('offset', 20);
    for (const half of [want.slice(0, 10), want.slice(10)]) {
      for (const body of half) await producer.send(made(topic, body));
      const inbox = new Inbox();
      const consumer = await world.push(topic, inbox.put, { group });
      await inbox.expect(half);
      await consumer.close();
    }
  },

  async retry(world) {
    const [topic, producer] = await world.topic('retry');
    const inbox = new Inbox();
    await producer.send(made(topic, 'again', { tags: 'R', keys: ['key'] }));
    const started = Date.now();
    const consumer = await world.push(topic, (message, queue) => {
      if (message.reconsumeTimes === 0) return Consumer.ACTION_RETRY;
      return inbox.put(message, queue);
    });
    await until('the redelivery', () => inbox.messages.length, 20_000);
    await inbox.expect(['again']);
    const [m] = inbox.messages;
    assert.deepEqual([m.reconsumeTimes, m.tags, m.keys, m.topic], [1, 'R', 'key', topic]);
    await consumer.close();
    return `after ${((m.at - started) / 1000).toFixed(1)} s`;
  },

  async 'dead letter'(world) {
    const [topic, producer] = await world.topic('dead');
    const group = world.name('group');
    await producer.send(made(topic, 'poison', { tags: 'P' }));
    const consumer = await world.push(
      topic, () => Consumer.ACTION_RETRY, { group, maxReconsumeTimes: 0 });
    const inbox = new Inbox();
    await world.route(producer, `%DLQ%${group}`);
    const reader = await world.push(`%DLQ%${group}`, inbox.put);
    await inbox.expect(['poison']);
    const [m] = inbox.messages;
    assert.deepEqual([m.tags, m.properties.RETRY_TOPIC], ['P', topic]);
    await consumer.close();
    await reader.close();
  },

  async 'delay level'(world) {
    const [topic, producer] = await world.topic('delay');
    await producer.send(made(topic, 'first'));
    const inbox = new Inbox();
    const consumer = await world.push(topic, inbox.put);
    await inbox.expect(['first']);
    const delays = [];
    for (const [level, least] of [[1, 1000], [2, 5000]]) {
      const sent = Date.now();
      await producer.send(made(topic, `level ${level}`, { delayTimeLevel: level }));
      await until(`level ${level}`, () => inbox.messages.length === level + 1);
      delays.push(inbox.messages.at(-1).at - sent);
      const late = delays.at(-1) - least;
      assert(late > -50 && late < 1500, `level ${level} took ${delays.at(-1)} ms`);
    }
    await consumer.close();
    return delays.map(ms => `${ms} ms`).join(', ');
  },

  async rebalance(world) {
    const [topic, producer] = await world.topic('rebalance');
    const group = world.name('group');
    const boxes = [new Inbox(), new Inbox()];
    const split = want => until(`queues split ${want}`, async () => {
      const round = world.name('round');
      for (let i = 0; i < 4; i++) await producer.send(made(topic, round)); // round robin
      await sleep(300);
      return boxes.map(box => box.messages.filter(m => m.body.toString() === round))
        .map(list => new Set(list.map(m => m.queueId)).size).join() === want;
    });
    await producer.send(made(topic, 'first'));
    const first = await world.push(topic, boxes[0].put, { group });
    await split('4,0');
    let started = Date.now();
    const second = await world.push(topic, boxes[1].put, { group });
    await split('2,2');
    const joined = Date.now() - started;
    started = Date.now();
    await second.close();
    await split('4,0');
    await first.close();
    const seconds = ms => (ms / 1000).toFixed(1);
    return `joined in ${seconds(joined)} s, left in ${seconds(Date.now() - started)} s`;
  },
};

async function brokerRestart(world) {
  const [topic, producer] = await world.topic('restart');
  const want = bodies('restart', 20);
  const inbox = new Inbox();
  for (const body of want.slice(0, 10)) await producer.send(made(topic, body));
  const consumer = await world.push(topic, inbox.put);
  await inbox.expect(want.slice(0, 10));
  if (!(await askRestart())) return { skipped: 'the server cannot be restarted from here' };
  const started = Date.now();
  const sent = body => producer.send(made(topic, body)).then(() => true, () => false);
  for (const body of want.slice(10)) await until('a send after the restart', () => sent(body));
  await until('every message', () => new Set(inbox.bodies).size === want.length);
  await consumer.close();
  return `all there ${((Date.now() - started) / 1000).toFixed(1)} s after the restart`;
}

async function askRestart() {
  const answer = readline.createInterface({ input: process.stdin });
  console.log(JSON.stringify({ request: 'restart' }));
  for await (const line of answer) return line === 'restarted';
  return false;
}

async function reported(scenario, run) {
  const started = Date.now();
  const result = { client: CLIENT, scenario, ok: false, skipped: false, detail: '' };
  try {
    const outcome = await run();
    result.skipped = Boolean(outcome?.skipped);
    result.ok = !result.skipped;
    result.detail = outcome?.skipped || outcome || '';
  } catch (error) {
    result.detail = String(error.message).slice(0, 600);
  }
  result.seconds = (Date.now() - started) / 1000;
  console.log(JSON.stringify(result));
}

async function main() {
  const { values } = parseArgs({ options: {
    namesrv: { type: 'string' },
    broker: { type: 'string' },
    run: { type: 'string' },
    only: { type: 'string' },
    list: { type: 'boolean' },
  } });
  if (values.list) {
    console.log([...Object.keys(scenarios), 'broker restart'].join('\n'));
    return;
  }
  const world = new World(values.namesrv, values.broker, values.run);
  const chosen = name => [undefined, name].includes(values.only);
  await Promise.all(Object.entries(scenarios).filter(([name]) => chosen(name))
    .map(([name, run]) => reported(name, () => run(world))));
  if (chosen('broker restart')) await reported('broker restart', () => brokerRestart(world));
  process.exit(0); // timers of the client go on for ever
}

main();
