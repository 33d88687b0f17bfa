// What the lab itself says goes to the terminal; what the kernel, its workers and its vats print goes to a file.
import { spawn } from 'node:child_process';
import { openSync, writeSync } from 'node:fs';

const toTerminal = { 1: process.stdout.write.bind(process.stdout), 2: process.stderr.write.bind(process.stderr) };

export const say = (line, stream = process.stdout) => {
  toTerminal[stream.fd](`${line}\n`);
};

// Returns a `spawn` for the workers, which the kernel lets inherit the terminal.
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
  return (command, args, { stdio, ...options }) =>
    spawn(command, args, { ...options, stdio: stdio.map(one => (one === 'inherit' ? fd : one)) });
};
