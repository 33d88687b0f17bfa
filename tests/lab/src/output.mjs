// What the lab itself says goes to the terminal; what the kernel and its vats print goes to a file.
import { openSync, writeSync } from 'node:fs';

const toTerminal = { 1: process.stdout.write.bind(process.stdout), 2: process.stderr.write.bind(process.stderr) };

export const say = (line, stream = process.stdout) => {
  toTerminal[stream.fd](`${line}\n`);
};

export const quieten = logFile => {
  const fd = openSync(logFile, 'w');
  for (const stream of [process.stdout, process.stderr]) {
    stream.write = (chunk, encoding, done) => {
      writeSync(fd, typeof chunk === 'string' ? chunk : Buffer.from(chunk));
      const callback = typeof encoding === 'function' ? encoding : done;
      if (callback) callback();
      return true;
    };
  }
};
