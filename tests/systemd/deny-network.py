#!/usr/bin/env python3
"""Runs a program in a control group that lets no packet in or out, as systemd does for IPAddressDeny=any: two BPF programs
that say no (cgroup_skb). Needs root and control groups of version 2; says "cannot deny:" without them.
Usage: deny-network.py PROGRAM ARGUMENT..."""

import ctypes
import os
import platform
import signal
import struct
import sys
import tempfile

PROG_LOAD, PROG_ATTACH, CGROUP_SKB = 5, 8, 8
NUMBER = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)


def bpf(command, attributes):
    space = ctypes.create_string_buffer(attributes, 128)
    answer = libc.syscall(NUMBER, command, space, len(space))
    if answer < 0:
        raise OSError(ctypes.get_errno(), "bpf")
    return answer


def deny(group):
    # r0 = 0; exit
    code = struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
    code, licence = ctypes.create_string_buffer(code, 16), ctypes.create_string_buffer(b"GPL")
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
    for way in (0, 1):
        attributes = (CGROUP_SKB, 2, ctypes.addressof(code), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"deny", 0, way)
        program = bpf(PROG_LOAD, struct.pack("<IIQQIIQII16sII", *attributes))
        bpf(PROG_ATTACH, struct.pack("<IIII", directory, program, way, 0))


try:
    root = next(path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if os.path.exists(f"{path}/cgroup.controllers"))
    group = tempfile.mkdtemp(prefix="spanwatch-deny-", dir=root)
except (OSError, StopIteration) as error:
    sys.exit(f"cannot deny: {error!r}")
try:
    deny(group)
except OSError as error:
    os.rmdir(group)
    sys.exit(f"cannot deny: {error!r}")
child = os.fork()
if child == 0:
    with open(f"{group}/cgroup.procs", "w") as members:
        members.write(str(os.getpid()))
    os.execv(sys.argv[1], sys.argv[1:])
# Told to end, it ends the program and takes the group with it.
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
os.waitpid(child, 0)
os.rmdir(group)
