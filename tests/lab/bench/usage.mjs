// Processor time and memory of processes, from /proc (proc_pid_stat(5)). A tick is a hundredth of a second.
import { readFileSync } from 'node:fs';

const TICKS = 100;

// In seconds: what the process has used itself, and what those have used that it started and that have ended.
export const cpuOf = (pid = 'self') => {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The name before the last parenthesis may hold anything. Then come the third field and the following.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user, system, childUser, childSystem] = fields.slice(11, 15).map(Number);
  return { own: (user + system) / TICKS, children: (childUser + childSystem) / TICKS };
};

export const childrenCpu = () => cpuOf().children;

// In bytes, the most that was resident so far.
export const peakMemory = pid => {
  const [, kilobytes] = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) || [];
  return kilobytes === undefined ? undefined : Number(kilobytes) * 1024;
};

// In bytes: what was read by system calls, and what of it came from a disk; those of ended children are among them.
export const bytesRead = pid => {
  const io = readFileSync(`/proc/${pid}/io`, 'utf8');
  const field = name => Number(new RegExp(`^${name}: (\\d+)`, 'm').exec(io)[1]);
  return { calls: field('rchar'), disk: field('read_bytes') };
};
