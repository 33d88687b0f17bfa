//! A program that tries, in the sandbox and in place of a worker, what no worker should be able to do: one thing a run.
//!
//! `hostile-worker ATTEMPT SECRET PARENT` prints what came of it: `DONE` or why not. Under a name such as `hostile.fork` it
//! speaks as much of the worker's protocol as it takes to be given a bundle, and makes its attempt then.
//!
//! A copy into which a test has written a path makes that file whenever it runs (`strangers` in the integration tests).
//!
//! There is no Rust runtime in it, as that makes system calls at its start which a worker does not make.

#![no_main]
#![expect(unsafe_code, reason = "misbehaves on purpose, and has no runtime to do so with")]
#![expect(clippy::undocumented_unsafe_blocks, reason = "one system call each, on what is around it")]
#![expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers all of them")]

use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::ptr;

/// What an attempt is made on.
struct Victim<'a> {
    /// A file of the user's.
    secret: &'a CStr,
    /// The directory that it is in.
    directory: CString,
    /// The process that started us.
    parent: libc::pid_t,
}

/// The result of a system call, as libc gives it.
type Came = c_long;
/// Something that is tried.
type Attempt = fn(&Victim<'_>) -> Came;

/// What it was loaded by itself, and may run.
#[cfg(target_arch = "x86_64")]
const LOADER: &CStr = c"/lib64/ld-linux-x86-64.so.2";
#[cfg(not(target_arch = "x86_64"))]
const LOADER: &CStr = c"/lib/ld-linux-aarch64.so.1";

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("read-file", |on| open(on.secret, libc::O_RDONLY)),
    ("write-file", |on| open(on.secret, libc::O_WRONLY)),
    ("create-file", |on| open(&within(&on.directory, "new"), libc::O_WRONLY | libc::O_CREAT)),
    ("create-file-here", |_| open(c"new", libc::O_WRONLY | libc::O_CREAT)),
    ("create-file-in-tmp", |_| open(c"/tmp/spanwatch-hostile", libc::O_WRONLY | libc::O_CREAT)),
    ("list-directory", |on| open(&on.directory, libc::O_RDONLY | libc::O_DIRECTORY)),
    ("list-this-directory", |_| open(c".", libc::O_RDONLY | libc::O_DIRECTORY)),
    ("leave-directory", |_| open(c"../../../../../../../../etc/passwd", libc::O_RDONLY)),
    ("ask-for-size", |on| {
        let mut stat = unsafe { std::mem::zeroed::<libc::stat>() };
        Came::from(unsafe { libc::stat(on.secret.as_ptr(), &raw mut stat) })
    }),
    ("remove-file", |on| Came::from(unsafe { libc::unlink(on.secret.as_ptr()) })),
    ("rename-file", |on| {
        Came::from(unsafe { libc::rename(on.secret.as_ptr(), within(&on.directory, "old").as_ptr()) })
    }),
    ("change-mode", |on| Came::from(unsafe { libc::chmod(on.secret.as_ptr(), 0o777) })),
    ("read-own-environment", |_| open(c"/proc/self/environ", libc::O_RDONLY)),
    ("read-own-memory", |_| open(c"/proc/self/mem", libc::O_RDWR)),
    ("read-parents-environment", |on| open(&of_process(on.parent, "environ"), libc::O_RDONLY)),
    ("read-parents-memory", |on| open(&of_process(on.parent, "mem"), libc::O_RDONLY)),
    ("copy-parents-memory", |on| {
        let mut byte = 0_u8;
        let ours = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let theirs = libc::iovec { iov_base: ptr::without_provenance_mut(0x1000), iov_len: 1 };
        unsafe { libc::process_vm_readv(on.parent, &raw const ours, 1, &raw const theirs, 1, 0) as Came }
    }),
    ("trace-parent", |on| unsafe { libc::ptrace(libc::PTRACE_SEIZE, on.parent, 0, 0) }),
    ("signal-parent", |on| Came::from(unsafe { libc::kill(on.parent, 0) })),
    ("abort-parent", |on| unsafe { libc::syscall(libc::SYS_tgkill, on.parent, on.parent, 0) }),
    ("abort-parent-at-once", |on| unsafe { libc::syscall(libc::SYS_tgkill, on.parent, on.parent, libc::SIGABRT) }),
    ("abort-a-thread-of-others", |on| unsafe {
        libc::syscall(libc::SYS_tgkill, libc::getpid(), on.parent, libc::SIGABRT)
    }),
    ("signal-everyone", |_| Came::from(unsafe { libc::kill(-1, 0) })),
    ("tcp-socket", |_| socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    ("tcp-connection", |_| {
        let address = libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 9_u16.to_be(),
            sin_addr: libc::in_addr { s_addr: 0x7f00_0001_u32.to_be() },
            sin_zero: [0; 8],
        };
        connect(libc::AF_INET, (&raw const address).cast(), size_of::<libc::sockaddr_in>())
    }),
    ("udp-socket", |_| socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
    ("raw-socket", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    ("netlink-socket", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
    ("abstract-socket", |_| connect_unix(b"\0spanwatch-hostile")),
    ("path-socket", |on| connect_unix(within(&on.directory, "socket").as_bytes())),
    ("fork", |_| {
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            unsafe { libc::_exit(0) };
        }
        Came::from(pid)
    }),
    ("thread", |_| unsafe { libc::syscall(libc::SYS_clone3, 0_usize, 0_usize) }),
    ("exec", |_| {
        let arguments = [c"true".as_ptr(), ptr::null()];
        Came::from(unsafe { libc::execve(c"/bin/true".as_ptr(), arguments.as_ptr(), arguments[1..].as_ptr()) })
    }),
    ("exec-loader", |on| {
        let loader = LOADER;
        let arguments = [loader.as_ptr(), on.secret.as_ptr(), ptr::null()];
        Came::from(unsafe { libc::execve(loader.as_ptr(), arguments.as_ptr(), arguments[2..].as_ptr()) })
    }),
    ("exec-image", |_| {
        // What the policy allows by its letter: descriptor 9, by no path.
        let script = b"#!/bin/true\n";
        let nothing = [ptr::null::<c_char>()];
        unsafe {
            libc::write(7, script.as_ptr().cast(), script.len());
            for descriptor in [0, 5, 6, 8] {
                libc::close(descriptor);
            }
            while (0..9).contains(&libc::dup(7)) {}
            let (flags, list) = (libc::AT_EMPTY_PATH, nothing.as_ptr());
            libc::syscall(libc::SYS_execveat, 9, c"".as_ptr(), list, list, flags)
        }
    }),
    ("exec-again", |_| {
        // As its own start was: descriptor 9, by no path; on what it may read and run, and which can run any file.
        let (loader, nothing) = (LOADER.as_ptr(), c"/nothing".as_ptr());
        let (arguments, environment) = ([loader, nothing, ptr::null()], [ptr::null::<c_char>()]);
        let (arguments, environment) = (arguments.as_ptr(), environment.as_ptr());
        unsafe {
            while (0..9).contains(&libc::open(loader, libc::O_RDONLY)) {}
            libc::syscall(libc::SYS_execveat, 9, c"".as_ptr(), arguments, environment, libc::AT_EMPTY_PATH, 0_u64)
        }
    }),
    ("exec-memory-file", |_| unsafe { libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0) }),
    ("user-namespace", |_| Came::from(unsafe { libc::unshare(libc::CLONE_NEWUSER) })),
    ("mount", |_| {
        let kind = c"tmpfs".as_ptr();
        Came::from(unsafe { libc::mount(kind, c"/tmp".as_ptr(), kind, 0, ptr::null()) })
    }),
    ("change-root", |_| Came::from(unsafe { libc::chroot(c"/".as_ptr()) })),
    ("become-root", |_| Came::from(unsafe { libc::setuid(0) })),
    ("trace-as-root", |_| Came::from(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) })),
    ("load-bpf", |_| unsafe { libc::syscall(libc::SYS_bpf, 5, 0, 0) }),
    ("io-uring", |_| unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }),
    ("keyring", |_| unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) }),
    ("perf-event", |_| unsafe { libc::syscall(libc::SYS_perf_event_open, 0, 0, -1, -1, 0) }),
    ("page-faults", |_| unsafe { libc::syscall(libc::SYS_userfaultfd, 0) }),
    ("shared-memory", |_| Came::from(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) })),
    ("share-memory", |_| map(4096, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1)),
    ("share-memory-validated", |_| map(4096, libc::MAP_SHARED_VALIDATE | libc::MAP_ANONYMOUS, -1)),
    ("share-its-base", |_| map(4096, libc::MAP_SHARED, 8)),
    ("share-zero-device", |_| {
        let zero = open(c"/dev/zero", libc::O_RDWR);
        if zero < 0 { -1 } else { map(4096, libc::MAP_SHARED, zero as c_int) }
    }),
    ("share-memory-file", |_| open(c"/dev/shm/spanwatch-hostile", libc::O_RDWR | libc::O_CREAT)),
    ("take-huge-pages", |_| map(2 << 20, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB, -1)),
    ("lock-memory", |_| map(4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_LOCKED, -1)),
    ("fill-memory-at-once", |_| map(4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE, -1)),
    ("map-memory-twice", |_| unsafe {
        let memory = map(4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
        libc::syscall(libc::SYS_mremap, memory, 0, 4096, libc::MREMAP_MAYMOVE)
    }),
    ("raise-a-limit", |_| {
        let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
        Came::from(unsafe { libc::setrlimit(libc::RLIMIT_NPROC, &raw const limit) })
    }),
    ("tune-descriptors", |_| Came::from(unsafe { libc::fcntl(7, libc::F_SETPIPE_SZ, 1 << 20) })),
    ("write-its-base", |_| open(c"/proc/self/fd/8", libc::O_RDWR)),
    ("type-on-terminal", |_| Came::from(unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) })),
    ("32-bit-call", |_| thirty_two_bit_getpid()),
    ("x32-call", |_| unsafe { libc::syscall(0x4000_0000 | libc::SYS_getppid) }),
    ("other-descriptors", |_| {
        // Nothing may be there but what a worker has; nothing may come out of those that are null.
        let mut found = -1;
        for descriptor in 9..1_024 {
            if unsafe { libc::write(descriptor, b"x".as_ptr().cast(), 1) } >= 0 {
                found = Came::from(descriptor);
            }
        }
        for descriptor in [0, 5, 6, 8] {
            if unsafe { libc::read(descriptor, [0_u8].as_mut_ptr().cast(), 1) } != 0 {
                found = Came::from(descriptor);
            }
        }
        found
    }),
    ("exhaust-processes", |_| {
        let mut born = -1;
        for _ in 0..100 {
            match unsafe { libc::fork() } {
                0 => unsafe { libc::_exit(0) },
                -1 => break,
                pid => born = Came::from(pid),
            }
        }
        born
    }),
    ("exhaust-memory", |_| {
        loop {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let bytes = 8 << 20;
            let rights = libc::PROT_READ | libc::PROT_WRITE;
            unsafe {
                let memory = libc::mmap(ptr::null_mut(), bytes, rights, flags, -1, 0);
                if memory == libc::MAP_FAILED {
                    return -1;
                }
                ptr::write_bytes(memory.cast::<u8>(), 1, bytes);
            }
        }
    }),
    ("exhaust-page-tables", |_| {
        // Reading gives the page of zeroes, which is nobody's memory, and takes a table of 4 KiB for each 2 MiB.
        let bytes = 16_usize << 30;
        loop {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let memory = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, flags, -1, 0) };
            if memory == libc::MAP_FAILED {
                return -1;
            }
            for at in (0..bytes).step_by(2 << 20) {
                unsafe { ptr::read_volatile(memory.cast::<u8>().add(at)) };
            }
        }
    }),
    ("exhaust-disk", |_| {
        loop {
            if unsafe { libc::write(7, [1_u8; 1 << 16].as_ptr().cast(), 1 << 16) } < 0 {
                return -1;
            }
        }
    }),
    ("exhaust-output", |_| {
        loop {
            if unsafe { libc::write(1, [b'x'; 1 << 16].as_ptr().cast(), 1 << 16) } < 0 {
                return -1;
            }
        }
    }),
    ("exhaust-processor", |_| {
        loop {
            std::hint::spin_loop();
        }
    }),
    ("exhaust-patience", |_| unsafe { libc::read(3, [0_u8].as_mut_ptr().cast(), 1) as Came }),
    ("sleep", |_| Came::from(unsafe { libc::usleep(1) })),
    ("crash", |_| unsafe { ptr::read_volatile(ptr::without_provenance::<Came>(8)) }),
    ("abort", |_| unsafe { libc::abort() }),
];

fn open(path: &CStr, flags: c_int) -> Came {
    Came::from(unsafe { libc::open(path.as_ptr(), flags, 0o600) })
}

fn map(bytes: usize, flags: c_int, file: c_int) -> Came {
    let rights = if file == 8 { libc::PROT_READ } else { libc::PROT_READ | libc::PROT_WRITE };
    // By number, as it gives an address or -1.
    unsafe { libc::syscall(libc::SYS_mmap, 0, bytes, rights, flags, file, 0) }
}

fn within(directory: &CStr, name: &str) -> CString {
    CString::new([directory.to_bytes(), b"/", name.as_bytes()].concat()).unwrap_or_default()
}

fn of_process(pid: libc::pid_t, name: &str) -> CString {
    CString::new(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

fn socket(family: c_int, kind: c_int, protocol: c_int) -> Came {
    Came::from(unsafe { libc::socket(family, kind, protocol) })
}

fn connect(family: c_int, address: *const libc::sockaddr, bytes: usize) -> Came {
    let socket = unsafe { libc::socket(family, libc::SOCK_STREAM, 0) };
    if socket == -1 {
        return -1;
    }
    Came::from(unsafe { libc::connect(socket, address, bytes as u32) })
}

fn connect_unix(name: &[u8]) -> Came {
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as u16;
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = *from as c_char;
    }
    connect(libc::AF_UNIX, (&raw const address).cast(), 2 + name.len())
}

#[cfg(target_arch = "x86_64")]
fn thirty_two_bit_getpid() -> Came {
    let came: Came;
    unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => came) };
    came
}

#[cfg(not(target_arch = "x86_64"))]
fn thirty_two_bit_getpid() -> Came {
    -1
}

fn attempt(name: &str, victim: &Victim<'_>) -> String {
    let Some((_, attempt)) = ATTEMPTS.iter().find(|(known, _)| *known == name) else {
        return format!("no attempt {name}");
    };
    unsafe { *libc::__errno_location() = 0 };
    let came = attempt(victim);
    if came >= 0 {
        return format!("{name}: DONE ({came})");
    }
    let error = match unsafe { *libc::__errno_location() } {
        libc::EPERM => "EPERM",
        libc::EACCES => "EACCES",
        libc::ENOENT => "ENOENT",
        libc::EAGAIN => "EAGAIN",
        libc::EBADF => "EBADF",
        libc::EINVAL => "EINVAL",
        libc::EFBIG => "EFBIG",
        libc::EROFS => "EROFS",
        libc::ESRCH => "ESRCH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNREFUSED => "ECONNREFUSED",
        other => return format!("{name}: error {other}"),
    };
    format!("{name}: {error}")
}

fn say(descriptor: c_int, text: &str) {
    unsafe { libc::write(descriptor, text.as_ptr().cast(), text.len()) };
}

/// One command of the protocol: a netstring from descriptor 3.
fn command() -> Option<Vec<u8>> {
    let byte = || {
        let mut byte = 0_u8;
        (unsafe { libc::read(3, (&raw mut byte).cast(), 1) } == 1).then_some(byte)
    };
    let mut length = 0;
    loop {
        match byte()? {
            b':' => break,
            digit => length = 10 * length + usize::from(digit - b'0'),
        }
    }
    let command = (0..length).map(|_| byte()).collect();
    byte()?;
    command
}

fn reply(text: &str) {
    say(4, &format!("{}:{text},", text.len()));
}

/// A file that the program makes before anything else, where a test has written its path over the rest of this text: it
/// shows that the program ran. A worker gets no argument and no variable that could say so.
const MARK: &[u8; 16] = b"spanwatch-marker";
#[used]
static MARKER: [u8; 256] = {
    let mut place = [0; 256];
    let mut at = 0;
    while at < MARK.len() {
        place[at] = MARK[at];
        at += 1;
    }
    place
};

fn leave_a_mark() {
    let place = unsafe { ptr::read_volatile(&raw const MARKER) };
    let path = &place[MARK.len()..];
    if let Ok(path) = CStr::from_bytes_until_nul(path)
        && !path.is_empty()
    {
        unsafe { libc::close(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CREAT, 0o666)) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    leave_a_mark();
    let arguments: Vec<&CStr> =
        (0..count as usize).map(|index| unsafe { CStr::from_ptr(*arguments.add(index)) }).collect();
    let text = |index: usize| arguments.get(index).and_then(|text| text.to_str().ok()).unwrap_or_default();
    if text(1) == "-v" {
        say(1, "xsnap 0.0.0 (XS hostile)\n");
        return 0;
    }
    let program = text(0);
    let (directory, name) = program.rsplit_once('/').unwrap_or((".", program));
    let secret = match arguments.get(2) {
        Some(path) if text(1) != "-r" && arguments.len() == 4 => CString::from(*path),
        _ => CString::new(format!("{directory}/secret")).unwrap_or_default(),
    };
    let victim = Victim {
        directory: CString::new(secret.to_str().unwrap_or_default().rsplit_once('/').unwrap_or_default().0)
            .unwrap_or_default(),
        secret: &secret,
        // Number 1 may be itself.
        parent: text(3).parse().unwrap_or(2),
    };
    let Some((_, named)) = name.split_once('.') else {
        say(1, &attempt(text(1), &victim));
        return 0;
    };
    while let Some(command) = command() {
        if command.starts_with(b"?") {
            reply(&format!("!{}", attempt(named, &victim)));
        } else {
            reply(".");
        }
    }
    0
}
