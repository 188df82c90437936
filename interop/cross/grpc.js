'use strict';

// The Node gRPC client. Arguments: ACTION ADDRESS TOPIC GROUP LABEL COUNT.

const { World, receive, text } = require('../grpc_node/world.js');

async function main([action, address, topic, group, label, count]) {
  const world = Object.assign(new World('', address, ''), { topic, group });
  if (action === 'send') {
    const more = { tag: 'red', keys: ['k1', `k-${label}`], properties: new Map([['mine', label]]) };
    const sent = await (await world.producer()).send(world.message(`from ${label} é`, more));
    console.log(JSON.stringify({ id: sent.messageId }));
  } else {
    for (const m of await receive(await world.simple(), Number(count))) {
      const { messageId: id, tag } = m;
      const line = { id, body: text(m), tag, keys: m.keys.join(' '), mine: m.properties.get('mine') };
      console.log(JSON.stringify(line));
    }
  }
  process.exit(0);
}

main(process.argv.slice(2));
