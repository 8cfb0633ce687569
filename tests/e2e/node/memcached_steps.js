// The client called memcached, which speaks text: node memcached_steps.js HOST:PORT[,HOST:PORT...]
'use strict';

const { promisify } = require('util');
const Memcached = require('memcached');
const { run } = require('./steps');

const servers = process.argv[2].split(',');
const client = new Memcached(servers, { retries: 0, timeout: 20000, failuresTimeout: 60000 });
const call = (name, ...args) => promisify(client[name]).apply(client, args);
const keys = Array.from({ length: 100 }, (_, i) => `many:${i}`);
const withoutUnique = ({ cas, ...rest }) => ({ ...rest, cas: typeof cas });
let seen;

run([
  ['flush', () => call('flush')],
  ['miss', () => call('get', 'a')],
  ['set', () => call('set', 'a', 'one', 100)],
  ['get', () => call('get', 'a')],
  ['kinds', async () => {
    await call('set', 'number', 42, 0);
    await call('set', 'object', { a: [1, null, 'x'] }, 0);
    await call('set', 'true', true, 0);
    await call('set', 'buffer', Buffer.from([0, 13, 10, 255]), 0);
    return Promise.all(['number', 'object', 'true', 'buffer'].map((k) => call('get', k)));
  }],
  ['add, there', () => call('add', 'a', 'x', 0)],
  ['add', () => call('add', 'b', 'two', 0)],
  ['replace', () => call('replace', 'b', 'three', 0)],
  ['replace, not there', () => call('replace', 'none', 'x', 0)],
  ['append', () => call('append', 'b', '>')],
  ['prepend', () => call('prepend', 'b', '<')],
  ['append, not there', () => call('append', 'none', '>')],
  ['gets', async () => { seen = (await call('gets', 'b')).cas; return withoutUnique(await call('gets', 'b')); }],
  ['cas', () => call('cas', 'b', 'four', seen, 0)],
  ['cas, changed', () => call('cas', 'b', 'five', seen, 0)],
  ['get again', () => call('get', 'b')],
  ['touch', () => call('touch', 'b', 100)],
  ['touch, not there', () => call('touch', 'none', 100)],
  ['incr', async () => { await call('set', 'n', '7', 0); return [await call('incr', 'n', 5), await call('decr', 'n', 2), await call('decr', 'n', 100)]; }],
  ['incr, not there', () => call('incr', 'none', 1)],
  ['incr a word', () => call('incr', 'a', 1)],
  ['del', () => call('del', 'b')],
  ['del, not there', () => call('del', 'b')],
  ['getMulti', async () => {
    await Promise.all(keys.map((k) => call('set', k, k, 0)));
    return call('getMulti', [...keys, 'none']);
  }],
  ['large', async () => [await call('set', 'large', 'x'.repeat(1000000), 0), await call('get', 'large')]],
  ['past', async () => [await call('set', 'past', 'x', 2592001), await call('get', 'past')]],
]).then(() => client.end());
