'use strict';

// The Node remoting client. Arguments: ACTION ADDRESS TOPIC GROUP LABEL COUNT.

const { Inbox, Message, World, until } = require('../node/world.js');

async function main([action, address, topic, group, label, count]) {
  const world = new World(address, '', group);
  if (action === 'send') {
    const producer = await world.producer();
    await world.route(producer, topic);
    const message = new Message(topic, 'red', `from ${label} é`);
    message.keys = ['k1', `k-${label}`];
    message.properties.mine = label;
    await producer.send(message);
    console.log('{"id": ""}'); // the broker gave it one, which the client does not look at
  } else {
    const inbox = new Inbox();
    await world.push(topic, inbox.put, { group });
    await until('messages', () => inbox.messages.length >= Number(count), 40_000).catch(() => {});
    for (const m of inbox.messages) {
      const { tags: tag, keys, properties } = m;
      const line = { id: properties.UNIQ_KEY, body: m.body.toString(), tag, keys };
      console.log(JSON.stringify({ ...line, mine: properties.mine }));
    }
  }
  process.exit(0);
}

main(process.argv.slice(2));
