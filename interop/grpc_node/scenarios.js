'use strict';

// Scenarios of RocketMQ 5's Node client; prints one JSON line a scenario.
// Arguments: --list, or ENDPOINT RUN CLIENT.

const assert = require('node:assert/strict');
const readline = require('node:readline');
const { FilterExpression, World, expect, numbered, persist, receive, sleep, text } =
  require('./world.js');

const SQL92 = 2; // FilterType.SQL
const COMMIT = 1, ROLLBACK = 2; // TransactionResolution
const NOT_FOUND = 40402, INVALID_RECEIPT_HANDLE = 40013;

async function normal(world) {
  const producer = await world.producer();
  const options = { tag: 'red', keys: ['k1', 'k2'], properties: new Map([['mine', '1']]) };
  const receipt = await producer.send(world.message('hello', options));
  const [got] = await receive(await world.simple(), 1);
  assert.deepEqual([text(got), got.tag, got.keys], ['hello', 'red', ['k1', 'k2']]);
  assert.deepEqual([...got.properties], [['mine', '1']]);
  assert.deepEqual([got.messageId, got.deliveryAttempt], [receipt.messageId, 1]);
}

async function fifo(world) {
  const producer = await world.producer();
  for (const body of numbered(20)) await producer.send(world.message(body, { messageGroup: 'one' }));
  assert.deepEqual((await receive(await world.simple(), 20)).map(text), numbered(20));
}

async function delayed(world) {
  const inbox = await world.push();
  const due = Date.now() + 4000;
  const producer = await world.producer();
  await producer.send(world.message('later', { deliveryTimestamp: new Date(due) }));
  await inbox.next();
  const late = Date.now() - due;
  assert(late >= 0, `early by ${-late} ms`);
  return `${late} ms after its time`;
}

async function priority(world) {
  const producer = await world.producer();
  // Not 0: the client takes a message of priority 0 for an ordinary one, and refuses it.
  for (const priority of [1, 3, 2]) await producer.send(world.message(`${priority}`, { priority }));
  const consumer = await world.simple();
  const bodies = [];
  for (let i = 0; i < 3; i++) bodies.push(text((await receive(consumer, 1, { batch: 1 }))[0]));
  assert.deepEqual(bodies, ['3', '2', '1']);
}

async function recall(world) {
  const producer = await world.producer(), inbox = await world.push();
  const deliveryTimestamp = new Date(Date.now() + 6000);
  const receipt = await producer.send(world.message('taken back', { deliveryTimestamp }));
  await producer.send(world.message('kept', { deliveryTimestamp }));
  const taken = await producer.recallMessage(world.topic, receipt.recallHandle);
  assert.equal(taken.messageId, receipt.messageId);
  assert.equal(await inbox.body(), 'kept');
  await inbox.nothing(1000);
}

// Orphans that begin with "kept" are committed.
const judge = { check: async message => (text(message).startsWith('kept') ? COMMIT : ROLLBACK) };

async function transaction(world) {
  const producer = await world.producer(judge), inbox = await world.push();
  const commit = producer.beginTransaction(), rollback = producer.beginTransaction();
  await producer.send(world.message('kept'), commit);
  await producer.send(world.message('gone'), rollback);
  await inbox.nothing(1000);
  await commit.commit();
  await rollback.rollback();
  assert.equal(await inbox.body(), 'kept');
  await inbox.nothing(1000);
}

async function orphan(world) {
  const producer = await world.producer(judge), inbox = await world.push();
  for (const body of ['gone', 'kept']) {
    await producer.send(world.message(body), producer.beginTransaction());
  }
  assert.equal(await inbox.body(), 'kept');
  await inbox.nothing(1000);
}

async function simple(world) {
  const producer = await world.producer();
  for (const body of numbered(50)) await producer.send(world.message(body));
  const bodies = (await receive(await world.simple(), 50)).map(text);
  assert.deepEqual(bodies.sort(), numbered(50).sort());
}

async function invisible(world) {
  await (await world.producer()).send(world.message('again'));
  const consumer = await world.simple();
  const [first] = await receive(consumer, 1, { ack: false, invisible: 30_000 });
  const started = Date.now();
  await consumer.changeInvisibleDuration(first, 10_000);
  const [second] = await receive(consumer, 1);
  const seconds = (Date.now() - started) / 1000;
  assert.deepEqual([second.messageId, second.deliveryAttempt], [first.messageId, 2]);
  assert(seconds >= 9 && seconds <= 20, `back after ${seconds} s, not 10`);
  return `back after ${seconds.toFixed(0)} s`;
}

async function stale(world) {
  await (await world.producer()).send(world.message('slow'));
  const consumer = await world.simple();
  const [got] = await receive(consumer, 1, { ack: false, invisible: 10_000 });
  await sleep(11_000);
  const refusal = await expect(INVALID_RECEIPT_HANDLE, () => consumer.ack(got));
  await receive(consumer, 1);
  return refusal;
}

async function push(world) {
  const inbox = await world.push(), producer = await world.producer();
  for (const body of numbered(100)) await producer.send(world.message(body));
  const bodies = [];
  while (bodies.length < 100) bodies.push(await inbox.body());
  assert.deepEqual(bodies.sort(), numbered(100).sort());
  await inbox.nothing(500);
}

async function pushInOrder(world) {
  let failures = 2;
  const inbox = await world.push(message => text(message) !== '3' || failures-- <= 0);
  const producer = await world.producer();
  for (const body of numbered(8)) await producer.send(world.message(body, { messageGroup: 'one' }));
  let order = '';
  while (!order.endsWith('7')) order += await inbox.body();
  assert.equal(order, '0123334567');
}

async function pushRetry(world) {
  const inbox = await world.push(message => message.deliveryAttempt >= 3);
  await (await world.producer()).send(world.message('stubborn'));
  for (const attempt of [1, 2, 3]) assert.equal((await inbox.next()).deliveryAttempt, attempt);
}

async function dies(world, more) {
  const inbox = await world.push(message => text(message) !== 'poison');
  const producer = await world.producer();
  const sent = await producer.send(world.message('poison', more));
  for (let i = 0; i < 3; i++) assert.equal(await inbox.body(), 'poison');
  const topic = `%DLQ%${world.group}`;
  await persist(() => producer.getRouteData(topic)); // not before the first dead letter
  const [dead] = await receive(await world.simple({ topic, group: `${world.group}-2` }), 1);
  assert.deepEqual([text(dead), dead.messageId], ['poison', sent.messageId]);
  await producer.send(world.message('next', more));
  assert.equal(await inbox.body(), 'next');
}

async function tags(world) {
  const producer = await world.producer();
  // The first two have the same Java hash.
  for (const tag of ['Aa', 'BB', 'C']) await producer.send(world.message(tag, { tag }));
  const got = await receive(await world.simple({ filter: new FilterExpression('Aa || C') }), 2);
  assert.deepEqual(got.map(text).sort(), ['Aa', 'C']);
}

async function sql(world) {
  const producer = await world.producer();
  for (const n of numbered(6)) {
    await producer.send(world.message(n, { properties: new Map([['n', n]]) }));
  }
  const filter = new FilterExpression('n > 1 AND n < 4', SQL92);
  const got = await receive(await world.simple({ filter }), 2);
  assert.deepEqual(got.map(text).sort(), ['2', '3']);
}

async function wrongType(world) {
  const producer = await world.producer();
  // The client knows from the route.
  return expect(0, () => producer.send(world.message('x', { messageGroup: 'g' })));
}

async function wrongTopic(world) {
  const producer = await world.producer();
  return expect(NOT_FOUND, () => producer.send({ topic: 'no-such-topic', body: Buffer.from('x') }));
}

async function large(world) {
  // The client's connection takes no answer of more than 4 MiB.
  const producer = await world.producer(), body = 'x'.repeat(4 * 1024 * 1024 - 1000);
  await producer.send(world.message(body));
  assert.equal((await receive(await world.simple(), 1))[0].body.length, body.length);
  return expect(0, () => producer.send(world.message(body + 'x'.repeat(1001))));
}

async function overTls(world) {
  world.tls = true;
  const inbox = await world.push();
  const sent = await (await world.producer()).send(world.message('secret'));
  assert.equal((await inbox.next()).messageId, sent.messageId);
}

async function askRestart() {
  console.log('{"request": "restart"}');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    return line === 'restarted';
  }
}

// A producer, a push consumer and what a simple consumer holds outlive the server's restart.
async function restart(world) {
  const producer = await world.producer(), inbox = await world.push();
  const holder = await world.simple({ group: `${world.group}-2` });
  await producer.send(world.message('before'));
  assert.equal(await inbox.body(), 'before');
  await receive(holder, 1, { ack: false, invisible: 10_000 });
  if (!await askRestart()) return { skipped: '--quick restarts nothing' };
  const started = Date.now();
  await persist(() => producer.send(world.message('after')));
  assert.equal(await inbox.body(), 'after');
  const seconds = (Date.now() - started) / 1000;
  const bodies = (await receive(holder, 2)).map(text);
  assert.deepEqual(bodies.sort(), ['after', 'before']);
  return `goes on after ${seconds.toFixed(1)} s`;
}

const SCENARIOS = {
  'gRPC send normal': normal,
  'gRPC send FIFO': fifo,
  'gRPC send delayed': delayed,
  'gRPC priority': priority,
  'gRPC recall': recall,
  'gRPC transaction': transaction,
  'gRPC orphaned transaction': orphan,
  'gRPC simple consumer': simple,
  'gRPC invisible time': invisible,
  'gRPC stale receipt': stale,
  'gRPC push consumer': push,
  'gRPC push in order': pushInOrder,
  'gRPC push retry': pushRetry,
  'gRPC dead letter': dies,
  'gRPC dead letter in order': world => dies(world, { messageGroup: 'one' }),
  'gRPC tags': tags,
  'gRPC SQL92 filter': sql,
  'gRPC wrong type': wrongType,
  'gRPC wrong topic': wrongTopic,
  'gRPC large body': large,
  'gRPC over TLS': overTls,
  'gRPC server restart': restart,
};

async function report(scenario, endpoint, run, client) {
  const started = Date.now();
  const result = { client, scenario, ok: true, detail: '' };
  try {
    const found = await SCENARIOS[scenario](new World(scenario, endpoint, run));
    if (found?.skipped) Object.assign(result, { ok: false, skipped: true, detail: found.skipped });
    else result.detail = found ?? '';
  } catch (error) {
    Object.assign(result, { ok: false, detail: `${error.message}`.slice(0, 300) });
  }
  console.log(JSON.stringify({ ...result, seconds: (Date.now() - started) / 1000 }));
}

async function main([endpoint, run, client]) {
  const names = Object.keys(SCENARIOS);
  if (endpoint === '--list') return names.forEach(name => console.log(name));
  const last = names.pop(); // nothing else may be under way while the server restarts
  await Promise.all(names.map(name => report(name, endpoint, run, client)));
  await report(last, endpoint, run, client);
  process.exit(0); // the clients' timers would go on
}

main(process.argv.slice(2));
