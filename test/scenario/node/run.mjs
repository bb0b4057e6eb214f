// Runs scenario steps through @alicloud/pop-core, in the words of scenario.json.
// Standard input is {endpoint, method, root, scenario}; the matrix is already
// written out as steps. Prints one line for each step, "ok NAME" or
// "FAILED NAME: why", and ends with status 1 at the first that failed.
import { constants, createPublicKey, publicEncrypt } from 'node:crypto';
import { text } from 'node:stream/consumers';
import { RPCClient } from '@alicloud/pop-core';

const { endpoint, method, root, versions, scenario } = JSON.parse(await text(process.stdin));
const variables = { rootID: root.id, rootSecret: root.secret };

function wrap(algorithm, key, material) {
  const hash = { RSAES_OAEP_SHA_256: 'sha256', RSAES_OAEP_SHA_1: 'sha1' }[algorithm];
  return publicEncrypt({
    key: createPublicKey({ key: Buffer.from(variables[key], 'base64'), format: 'der', type: 'spki' }),
    padding: constants.RSA_PKCS1_OAEP_PADDING,
    oaepHash: hash,
  }, Buffer.from(scenario.materials[material], 'hex')).toString('base64');
}

function lookup(name) {
  const [kind, ...rest] = name.split(':');
  if (kind === 'wrap' && rest.length === 3) return wrap(...rest);
  if (!(name in variables)) throw new Error(`no step captured ${name}`);
  return variables[name];
}

function expand(value) {
  if (typeof value === 'string') return value.replace(/\$\{([^}]+)\}/g, (_, name) => lookup(name));
  if (Array.isArray(value)) return value.map(expand);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, v]) => [name, expand(v)]));
  }
  return value;
}

function at(value, path) {
  for (const name of path.split('.')) {
    if (name === '#' && Array.isArray(value)) value = value.length;
    else if (value && typeof value === 'object') value = value[name];
    else return undefined;
  }
  return value;
}

// An object is an encryption context, which the API takes as JSON.
function parameters(params) {
  return Object.fromEntries(Object.entries(expand(params ?? {})).map(([name, v]) =>
    [name, v && typeof v === 'object' && !Array.isArray(v) ? JSON.stringify(v) : v]));
}

async function call(step) {
  const who = expand(scenario.identities[step.as]);
  const client = new RPCClient({
    endpoint, apiVersion: versions[step.product],
    accessKeyId: who.id, accessKeySecret: who.secret, securityToken: who.token,
  }, true);
  const params = { RegionId: step.region, ...parameters(step.params) };
  try {
    const [body, entry] = await client.request(step.action, params, { method, timeout: 30000 });
    return { status: entry.response.statusCode, code: '', body };
  } catch (err) {
    if (!err.code || !err.entry) throw err;
    return { status: err.entry.response.statusCode, code: err.code, body: {} };
  }
}

async function setFaults(rules) {
  const answer = await fetch(`${endpoint}/-/faults`, { method: 'PUT', body: JSON.stringify({ rules }) });
  if (!answer.ok) throw new Error(`faults: ${answer.status} ${await answer.text()}`);
}

async function run(step) {
  if (step.faults) return setFaults(step.faults);
  const answer = await call(step);
  if (answer.status !== step.status || answer.code !== (step.code ?? '')) {
    throw new Error(`answered ${answer.status} "${answer.code}", want ${step.status} "${step.code ?? ''}"`);
  }
  for (const [path, want] of Object.entries(expand(step.expect ?? {}))) {
    const got = at(answer.body, path);
    if (want === '*' && typeof got === 'string' && got !== '') continue;
    if (want === '' && got === undefined) continue;
    if (got !== want) throw new Error(`${path} is ${typeof got} ${got}, want ${typeof want} ${want}`);
  }
  for (const [name, path] of Object.entries(step.capture ?? {})) {
    const got = at(answer.body, path);
    if (typeof got !== 'string' || got === '') throw new Error(`there is no ${path} to capture`);
    variables[name] = got;
  }
}

for (const step of scenario.steps) {
  try {
    await run(step);
  } catch (err) {
    console.log(`FAILED ${step.name}: ${err.message}`);
    process.exit(1);
  }
  console.log(`ok ${step.name}`);
}
process.exit(0);
