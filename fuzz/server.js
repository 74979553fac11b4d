// Node's own HTTP parser as a judge. What it has read whole of each connection is told on a second port, as /<the client's port>:
// an answer would not do, since it drops those that are not out yet when what follows is malformed.
const http = require('http');
const crypto = require('crypto');

const taken = new Map();
const limits = { maxHeaderSize: 65536, keepAliveTimeout: 150, headersTimeout: 1000, requestTimeout: 1000, connectionsCheckingInterval: 100 };
const server = http.createServer(limits);
server.on('request', (request, response) => {
  const pieces = [];
  const entry = [request.method, request.url, -1, ''];
  const port = request.socket.remotePort;
  taken.set(port, [...(taken.get(port) || []), entry]);
  const whole = () => {
    for (let piece; request.complete && (piece = request.read()) !== null; ) pieces.push(piece);
    if (!request.complete || entry[2] >= 0) return;
    const body = Buffer.concat(pieces);
    entry[2] = body.length;
    entry[3] = crypto.createHash('sha1').update(body).digest('hex').slice(0, 12);
  };
  request.on('data', (piece) => pieces.push(piece));
  request.on('error', () => {});
  request.on('end', () => {
    whole();
    response.end();
  });
  request.on('close', whole);
});
const control = http.createServer((request, response) => {
  const port = Number(request.url.slice(1));
  setImmediate(() => {
    response.end(JSON.stringify((taken.get(port) || []).filter((entry) => entry[2] >= 0)));
    taken.delete(port);
  });
});
server.listen(0, '127.0.0.1', 1024, () =>
  control.listen(0, '127.0.0.1', 1024, () =>
    console.log(JSON.stringify({ port: server.address().port, control: control.address().port, version: process.version })),
  ),
);
