// A GELF receiver over UDP: prints its port, then each message as a line of JSON. node gelf.js
const server = require('graygelf/server')();

server.on('message', (message) => console.log(JSON.stringify(message)));
server.on('error', (error) => console.log(JSON.stringify({ error: String(error) })));
server.listen(Number(process.argv[2]), '127.0.0.1');
server._udp.on('listening', () => console.log(server._udp.address().port));
