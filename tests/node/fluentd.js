// A forward receiver: prints its port, then each entry as a line of JSON; binary values as hexadecimal digits.
// node fluentd.js [CERTIFICATE KEY]
const fs = require('fs');
const { FluentServer } = require('@fluent-org/logger');

class Receiver extends FluentServer {
  onEntry(tag, time, record) {
    const seconds = time.epoch === undefined ? [time] : [time.epoch, time.nano];
    const plain = Object.entries(record).map(([key, value]) => [key, value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value]);
    console.log(JSON.stringify({ tag, time: seconds, record: Object.fromEntries(plain) }));
  }
}

const [cert, key] = process.argv.slice(2);
const options = { listenOptions: { host: '127.0.0.1', port: 0 } };
if (cert) options.tlsOptions = { cert: fs.readFileSync(cert), key: fs.readFileSync(key) };
const server = new Receiver(options);
server.listen().then(() => console.log(server.port));
