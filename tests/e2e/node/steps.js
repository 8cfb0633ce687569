// Runs named steps one after the other and prints what each answered, a line of JSON each: what two servers make a client say can be compared.
'use strict';

function plain(answer) {
  if (Buffer.isBuffer(answer)) return answer.length > 1000 ? `${answer.length} bytes` : answer.toString('latin1');
  if (typeof answer === 'string' && answer.length > 1000) return `${answer.length} characters`;
  if (Array.isArray(answer)) return answer.map(plain);
  if (answer && typeof answer === 'object') return Object.fromEntries(Object.keys(answer).sort().map((key) => [key, plain(answer[key])]));
  return answer === undefined ? null : answer;
}

async function run(steps) {
  for (const [name, step] of steps) {
    let answer;
    try {
      answer = plain(await step());
    } catch (error) {
      answer = { error: String(error && error.message ? error.message : error) };
    }
    console.log(JSON.stringify([name, answer]));
  }
}

module.exports = { run };
