// Alibaba Cloud's SDK over TCP, with an access key that the broker has issued.
//
//   kmsbrokerctl app issue web --out web-key.toml
//   echo secret | node tcp.mjs KEY http://127.0.0.1:8765 web-key.toml
import { readFileSync } from 'node:fs';
import { RPCClient } from '@alicloud/pop-core';
import { roundTrip } from './kms.mjs';

const [key, endpoint, file] = process.argv.slice(2);
if (!file) {
  console.error('usage: tcp.mjs KEY ENDPOINT FILE');
  process.exit(2);
}
const issued = Object.fromEntries([...readFileSync(file, 'utf8').matchAll(/^(\w+) *= *"(.*)"$/gm)].map(([, name, value]) => [name, value]));
const client = new RPCClient({
  endpoint, apiVersion: '2016-01-20', accessKeyId: issued.access_key_id, accessKeySecret: issued.access_key_secret,
});
await roundTrip(client, key);
