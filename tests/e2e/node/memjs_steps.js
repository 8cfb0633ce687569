// memjs, which speaks binary: node memjs_steps.js HOST:PORT[,HOST:PORT...]
'use strict';

const memjs = require('memjs');
const { run } = require('./steps');

const client = memjs.Client.create(process.argv[2], { retries: 0, timeout: 20, failover: false });
const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
const keys = Array.from({ length: 50 }, (_, i) => `many:${i}`);

run([
  ['flush', async () => Object.values(await client.flush())],
  ['miss', () => client.get('a')],
  ['set', () => client.set('a', 'one', { expires: 100 })],
  ['get', () => client.get('a')],
  ['add, there', () => client.add('a', 'x', {})],
  ['add', () => client.add('b', 'two', { expires: 0 })],
  ['replace', () => client.replace('b', 'three', {})],
  ['replace, not there', () => client.replace('none', 'x', {})],
  ['append', () => client.append('b', '>')],
  ['prepend', () => client.prepend('b', '<')],
  ['append, not there', () => client.append('none', '>')],
  ['get again', () => client.get('b')],
  ['touch', () => client.touch('b', 100)],
  ['touch, not there', () => client.touch('none', 100)],
  ['increment creates', () => client.increment('n', 5, { initial: 7 })],
  ['increment', () => client.increment('n', 5, {})],
  ['decrement', () => client.decrement('n', 2, {})],
  ['decrement below zero', () => client.decrement('n', 100, {})],
  ['increment a word', () => client.increment('a', 1, {})],
  ['delete', () => client.delete('b')],
  ['delete, not there', () => client.delete('b')],
  ['get after delete', () => client.get('b')],
  ['empty', async () => [await client.set('empty', ''), await client.get('empty')]],
  ['bytes', async () => [await client.set('bytes', bytes), (await client.get('bytes')).value.equals(bytes)]],
  ['large', async () => [await client.set('large', Buffer.alloc(1000000, 'x')), (await client.get('large')).value]],
  ['too large', () => client.set('large', Buffer.alloc(1048577, 'x'))],
  ['after too large', () => client.get('large')],
  ['odd keys', async () => [await client.set('with space\n', 'x'), await client.get('with space\n'), await client.set('schl\u00fcssel', 'y'), await client.get('schl\u00fcssel')]],
  ['at once', async () => [await Promise.all(keys.map((k) => client.set(k, k))), await Promise.all(keys.map((k) => client.get(k)))]],
  ['past', async () => [await client.set('past', 'x', { expires: 2592001 }), await client.get('past')]],
]).then(() => client.quit());
