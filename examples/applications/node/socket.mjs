// Alibaba Cloud's SDK on the broker's socket, where the kernel says who calls.
//
//   echo secret | node socket.mjs KEY [SOCKET]
import { Agent } from 'node:http';
import { RPCClient } from '@alicloud/pop-core';
import { roundTrip } from './kms.mjs';

const [key, socketPath = '/run/kmsbroker/alibaba.sock'] = process.argv.slice(2);
if (!key) {
  console.error('usage: socket.mjs KEY [SOCKET]');
  process.exit(2);
}
const client = new RPCClient({
  endpoint: 'http://localhost', apiVersion: '2016-01-20',
  accessKeyId: 'none', accessKeySecret: 'none', // the SDK wants some; they count for nothing
  opts: { agent: new Agent({ socketPath }) },
});
await roundTrip(client, key);
