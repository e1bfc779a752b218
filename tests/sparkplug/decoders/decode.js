// Decodes payloads with npm's sparkplug-payload: reads lines of hex, writes a line of JSON for each.
'use strict'

const { createInterface } = require('node:readline')
const { get } = require('sparkplug-payload')

const codec = get('spBv1.0')
const text = (value) => (value === undefined || value === null ? null : value.toString())

function plain (metric) {
  // 64 bits do not fit into a number of JavaScript: they come as objects, and are compared as text.
  const isWhole = ['Int32', 'Int64', 'DateTime'].includes(metric.type)
  return {
    name: metric.name ?? null,
    alias: text(metric.alias),
    type: metric.type.toLowerCase(),
    value: isWhole ? text(metric.value) : metric.value,
    historical: metric.isHistorical === true,
    ts: text(metric.timestamp)
  }
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const payload = codec.decodePayload(Buffer.from(line, 'hex'))
  console.log(JSON.stringify({ seq: text(payload.seq), metrics: (payload.metrics ?? []).map(plain) }))
})
