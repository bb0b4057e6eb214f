// What both examples have in common: standard input is encrypted with a key and
// decrypted again by a client of Alibaba Cloud's SDK.
import { buffer } from 'node:stream/consumers';

export async function roundTrip(client, key) {
  const EncryptionContext = JSON.stringify({ purpose: 'example' });
  const options = { method: 'POST', timeout: 60000 };
  const secret = await buffer(process.stdin);
  try {
    const { CiphertextBlob } = await client.request('Encrypt', { KeyId: key, Plaintext: secret.toString('base64'), EncryptionContext }, options);
    const { Plaintext } = await client.request('Decrypt', { CiphertextBlob, EncryptionContext }, options);
    process.stdout.write(Buffer.from(Plaintext, 'base64'));
  } catch (error) {
    console.error(`error: ${error.code ?? ''} ${error.data?.Message ?? error.message}`);
    process.exitCode = 1;
  }
}
